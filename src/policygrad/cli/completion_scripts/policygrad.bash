# completion of policygrad for bash: eval "$(policygrad completion bash)"

_policygrad_runs() {
  local config
  echo latest
  for config in runs/*/config.json runs/*/*/config.json runs/*/*/*/config.json; do
    if [[ -e $config ]]; then
      config=${config#runs/}
      echo "${config%/config.json}"
    fi
  done
}

_policygrad() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
  local algo= env= words= kind= i
  COMPREPLY=()
  if [[ $cur == = ]]; then
    cur=
  elif [[ $prev == = ]]; then
    prev=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  for ((i = 2; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      @algorithms@
      *-v[0-9]*) env=${COMP_WORDS[i]} ;;
    esac
  done
  [[ $command == train ]] && command="train $algo"
  [[ $command == lab ]] && ((COMP_CWORD > 2)) && command="lab ${COMP_WORDS[2]}"
  case "$command $prev" in
    @values@
  esac
  if [[ -z $words && -z $kind ]]; then
    if ((COMP_CWORD == 1)); then
      @commands@
    elif [[ $cur == -* ]]; then
      case $command in
        @flags@
        "train ") words="--help --algo --env" ;;
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
          words=$(_policygrad_runs)
          kind=files
          ;;
        @lists@
      esac
    fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  if [[ $kind == dirs || $kind == files && ${#COMPREPLY[@]} == 0 ]]; then
    [[ $kind == dirs ]] && kind=-d || kind=-f
    COMPREPLY=($(compgen $kind -- "$cur"))
    compopt -o filenames 2>/dev/null
  fi
}

complete -F _policygrad policygrad
