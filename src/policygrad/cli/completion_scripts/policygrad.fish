# completion of policygrad for fish: policygrad completion fish > ~/.config/fish/completions/policygrad.fish

function __policygrad_first
    test (count (commandline -opc)) -eq 1
end

# a command, and for train an algorithm: both are among the words
function __policygrad_is
    set -l given (commandline -opc)
    test (count $given) -gt 1; and test $given[2] = $argv[1]; or return 1
    test (count $argv) -eq 1; or contains -- $argv[2] $given
end

function __policygrad_no_algo
    __policygrad_is train; and test (count (commandline -opc)) -eq 2
end

function __policygrad_no_env
    __policygrad_is train $argv[1]; and not string match -qr -- '-v\d' (commandline -opc)
end

function __policygrad_plays
    set -l given (commandline -opc)
    test (count $given) -gt 1; and contains -- $given[2] eval collect export video watch plot report; or __policygrad_is lab steps
end

function __policygrad_runs
    echo latest
    for config in runs/*/config.json runs/*/*/config.json runs/*/*/*/config.json
        string replace -r '^runs/(.*)/config.json$' '$1' -- $config
    end
end

complete -c policygrad -f
complete -c policygrad -n '__policygrad_plays' -F -a '(__policygrad_runs)'
@words@
