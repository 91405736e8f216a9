# bash completion of hailo-clip: "hailo-clip completion bash" prints it

# What the flag $2 of the command $1 takes: words and which, files, folders or any; status 1: nothing.
_hailo_clip_value() {
    case "$2" in
    --level|-l) echo 'words low high'; return ;;
    esac
    case "$1 $2" in
    "run --dir") echo 'folders' ;;
    "run -o"|"run --out") echo 'files' ;;
    *) return 1 ;;
    esac
}

_hailo_clip() {
    local current="${COMP_WORDS[COMP_CWORD]}" command="" word flag="" kind i
    # --flag=value is three words here.
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        if [[ $word == "=" ]]; then continue; fi
        if [[ -n $flag ]]; then flag=""; continue; fi
        if [[ $word == -* ]]; then
            _hailo_clip_value "$command" "$word" >/dev/null && flag="$word"
            continue
        fi
        case "${command:+$command }$word" in
        "run"|"model"|"model pull"|"model show")
            command="${command:+$command }$word" ;;
        esac
    done
    [[ $current == "=" ]] && current=""
    COMPREPLY=()
    if [[ -n $flag ]]; then
        kind="$(_hailo_clip_value "$command" "$flag")"
    elif [[ $current == -* ]]; then
        kind="words -h --help -l --level"
        case "$command" in
        "run") kind+=" --dir -o --out --quiet" ;;
        "model") kind+=" --deep" ;;
        "model show") kind+=" --deep" ;;
        esac
    else
        case "$command" in
        "") kind="words run model" ;;
        "run") kind='files' ;;
        "model") kind="words pull show" ;;
        "model pull") kind='words demo clip-resnet-50 clip-resnet-50x4 clip-vit-b-16-int8 clip-vit-b-16 clip-vit-b-32-int8 clip-vit-b-32 clip-vit-l-14-laion2b tinyclip-vit-39m-16-int8 tinyclip-vit-39m-16 tinyclip-vit-40m-32-int8 tinyclip-vit-40m-32 tinyclip-vit-61m-32 tinyclip-vit-8m-16-int8 tinyclip-vit-8m-16' ;;
        "model show") kind='any' ;;
        esac
    fi
    case "$kind" in
    words*) mapfile -t COMPREPLY < <(compgen -W "${kind#words}" -- "$current") ;;
    files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    folders) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    esac
}

complete -F _hailo_clip hailo-clip
