{{- $program := index . 0 -}}
#compdef hailo-clip
# zsh completion of hailo-clip: "hailo-clip completion zsh" prints it

# What the flag $2 of the command $1 takes, in REPLY: words and which, files, folders or any; status 1: nothing.
_hailo_clip_value() {
    case "$2" in
{{- range $program.Flags}}{{if .Value}}
    {{.Names ""}}) REPLY={{quote .Kind}}; return ;;{{end}}{{end}}
    esac
    case "$1 $2" in
{{- range slice . 1}}{{$path := .Path}}{{range .Flags}}{{if .Value}}
    {{range $i, $name := .Spellings}}{{if $i}}|{{end}}"{{$path}} {{$name}}"{{end}}) REPLY={{quote .Kind}} ;;{{end}}{{end}}{{end}}
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
        {{range $i, $e := slice . 1}}{{if $i}}|{{end}}"{{$e.Path}}"{{end}})
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
{{- range $program.Flags}}{{$help := .Help}}{{range .Spellings}}
            {{zsh . $help}}{{end}}{{end}}
        )
        case "$command" in
{{- range slice . 1}}{{if .Flags}}
        "{{.Path}}") found+=(
{{- range .Flags}}{{$help := .Help}}{{range .Spellings}}
            {{zsh . $help}}{{end}}{{end}}
        ) ;;{{end}}{{end}}
        esac
        _describe -o flag found
        return
    else
        case "$command" in
{{- range .}}
{{- if .Commands}}
        "{{.Path}}") found=(
{{- range .Commands}}
            {{zsh .Name .Help}}{{end}}
        ) ;;
{{- else}}
        "{{.Path}}") kind={{quote .Operand.Kind}} ;;
{{- end}}{{end}}
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
