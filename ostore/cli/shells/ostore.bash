# Completes `ostore` in bash 4.4 or newer; bash-completion is not needed.
# In ~/.bashrc:  source <(ostore completion bash)

_ostore() {
    local rest=${COMP_LINE:0:COMP_POINT} word='' cut='' words=() told=() piece i
    # Readline also breaks words at : and =, which belong to ours: only blanks end a word of the line.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        if [[ $rest == [[:blank:]]* ]]; then
            words+=("$word")
            word='' cut='' rest=${rest#"${rest%%[![:blank:]]*}"}
        fi
        piece=${COMP_WORDS[i]}
        ((i < COMP_CWORD)) || piece=$rest
        cut=$word word+=$piece rest=${rest#"$piece"}
    done
    # Readline replaces the last piece alone, and nothing of a piece that is a break; what stands before is cut off.
    [[ $piece != [:=]* ]] || cut=$word
    unset 'words[0]'

    # Words are as typed, and never evaluated: quotes and backslashes are left out.
    mapfile -t told < <(
        command ostore _complete "=${word//[\\\"\']/}" "${words[@]//[\\\"\']/}" 2>/dev/null
    )
    COMPREPLY=()
    for piece in "${told[@]:1}"; do
        piece=${piece%%$'\t'*}
        COMPREPLY+=("${piece#"$cut"}")
    done
    # Readline itself completes paths where nothing else fits.
    case ${told[0]} in
        files) compopt -o default ;;
        folders) compopt -o dirnames ;;
    esac
}
complete -F _ostore ostore
