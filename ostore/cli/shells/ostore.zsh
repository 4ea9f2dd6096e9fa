#compdef ostore
# Completes `ostore` in zsh.
# In ~/.zshrc, after compinit:  source <(ostore completion zsh)
# or once, as a file named _ostore in a folder of $fpath.

_ostore() {
    local -a before told candidates
    local line word
    (( CURRENT > 2 )) && before=("${(@Q)words[2,CURRENT-1]}")
    told=("${(@f)$(command ostore _complete "=${(Q)PREFIX}" "${before[@]}" 2>/dev/null)}")
    for line in "${(@)told[2,-1]}"; do
        word=${line%%$'\t'*}
        candidates+=("${word//:/\\:}${${line#$word}/$'\t'/:}")
    done
    (( $#candidates )) && _describe -V ostore candidates
    [[ $told[1] != none && $PREFIX == --*=* ]] && compset -P '*='
    case $told[1] in
        files) _files ;;
        folders) _files -/ ;;
    esac
}

if [[ $funcstack[1] == _ostore ]]; then
    _ostore "$@"
else
    compdef _ostore ostore
fi
