#compdef policygrad
# completion of policygrad for zsh: eval "$(policygrad completion zsh)" after compinit, or this file as _policygrad in $fpath

_policygrad() {
  local command=$words[2] prev=$words[CURRENT-1] algo env kind i
  local -a found runs
  for ((i = 3; i < CURRENT; i++)); do
    case $words[i] in
      @algorithms@
      *-v[0-9]*) env=$words[i] ;;
    esac
  done
  [[ $command == train ]] && command="train $algo"
  [[ $command == lab ]] && ((CURRENT > 3)) && command="lab $words[3]"
  case "$command $prev" in
    @values@
  esac
  if ((! $#found)) && [[ -z $kind ]]; then
    if ((CURRENT == 2)); then
      @commands@
    elif [[ $PREFIX == -* ]]; then
      case $command in
        @flags@
        "train ") found=(--help --algo --env) ;;
      esac
    else
      case $command in
        "train ")
          @algorithm_names@
          ;;
        train\ *)
          if [[ -z $env ]]; then
            case $algo in
              @environments@
            esac
          fi
          ;;
        eval|collect|export|video|watch|plot|report|"lab steps")
          runs=(runs/*/config.json(N) runs/*/*/config.json(N) runs/*/*/*/config.json(N))
          found=(latest ${${runs#runs/}%/config.json})
          kind=files
          ;;
        @lists@
      esac
    fi
  fi
  (($#found)) && _describe 'policygrad' found
  case $kind in
    dirs) _files -/ ;;
    files) _files ;;
  esac
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _policygrad "$@"
elif (($+functions[compdef])); then
  compdef _policygrad policygrad
fi
