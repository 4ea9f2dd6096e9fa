# Completes `ostore` in fish.
# In ~/.config/fish/config.fish:  ostore completion fish | source

function __ostore_complete
    set -l word (commandline -ct)
    set -l before (commandline -opc)
    set -l told (command ostore _complete "=$word" $before[2..] 2>/dev/null)
    or return
    string join \n -- $told[2..]
    set -l option (string match -r '^--[^=]*=' -- $word)
    set -l path (string replace -- "$option" '' $word)
    switch $told[1]
        case files
            string join \n -- "$option"(__fish_complete_path $path)
        case folders
            string join \n -- "$option"(__fish_complete_directories $path '')
    end
end

complete -c ostore -f -k -a '(__ostore_complete)'
