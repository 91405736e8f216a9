#compdef hailo-clip
# zsh completion of hailo-clip: "hailo-clip completion zsh" prints it

# What the flag $2 of the command $1 takes, in REPLY: words and which, files, folders or any; status 1: nothing.
_hailo_clip_value() {
    case "$2" in
    --level|-l) REPLY='words low high'; return ;;
    esac
    case "$1 $2" in
    "run --dir") REPLY='folders' ;;
    "run -o"|"run --out") REPLY='files' ;;
    *) return 1 ;;
    esac
}

_hailo_clip() {
    local command="" word flag="" kind="" REPLY
    local -a found
    for word in "${(@)words[2,CURRENT-1]}"; do
        if [[ -n $flag ]]; then flag=""; continue; fi
        if [[ $word == -* ]]; then
            _hailo_clip_value "$command" "$word" && flag="$word"
            continue
        fi
        case "${command:+$command }$word" in
        "run"|"model"|"model pull"|"model show")
            command="${command:+$command }$word" ;;
        esac
    done
    if [[ -n $flag ]]; then
        _hailo_clip_value "$command" "$flag" && kind="$REPLY"
    elif [[ $PREFIX == --*=* ]]; then
        _hailo_clip_value "$command" "${PREFIX%%=*}" && kind="$REPLY"
        compset -P '*='
    elif [[ $PREFIX == -* ]]; then
        found=(
            '-h:Show context-sensitive help'
            '--help:Show context-sensitive help'
            '-l:How it'\''s done'
            '--level:How it'\''s done'
        )
        case "$command" in
        "run") found+=(
            '--dir:A folder: "here" or there'
            '-o:.dots and '\''quotes'\'''
            '--out:.dots and '\''quotes'\'''
            '--quiet:Say $nothing'
        ) ;;
        "model") found+=(
            '--deep:All of it'
        ) ;;
        "model show") found+=(
            '--deep:All of it'
        ) ;;
        esac
        _describe -o flag found
        return
    else
        case "$command" in
        "") found=(
            'run:Run it; don'\''t wait'
            'model:Models'
        ) ;;
        "run") kind='files' ;;
        "model") found=(
            'pull:Fetch one'
            'show:Show one'
        ) ;;
        "model pull") kind='words demo clip-resnet-50 clip-resnet-50x4 clip-vit-b-16-int8 clip-vit-b-16 clip-vit-b-32-int8 clip-vit-b-32 clip-vit-l-14-laion2b tinyclip-vit-39m-16-int8 tinyclip-vit-39m-16 tinyclip-vit-40m-32-int8 tinyclip-vit-40m-32 tinyclip-vit-61m-32 tinyclip-vit-8m-16-int8 tinyclip-vit-8m-16' ;;
        "model show") kind='any' ;;
        esac
        if [[ -z $kind ]]; then
            _describe command found
            return
        fi
    fi
    case "$kind" in
    words*) found=(${=kind#words}); compadd -a found ;;
    files) _files ;;
    folders) _files -/ ;;
    esac
}

# Loaded by its name, the file is the function; sourced, it makes it known.
if [[ $funcstack[1] == _hailo-clip ]]; then
    _hailo_clip "$@"
else
    compdef _hailo_clip hailo-clip
fi
