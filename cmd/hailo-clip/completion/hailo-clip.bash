{{- $program := index . 0 -}}
# bash completion of hailo-clip: "hailo-clip completion bash" prints it

# What the flag $2 of the command $1 takes: words and which, files, folders or any; status 1: nothing.
_hailo_clip_value() {
    case "$2" in
{{- range $program.Flags}}{{if .Value}}
    {{.Names ""}}) echo {{quote .Kind}}; return ;;{{end}}{{end}}
    esac
    case "$1 $2" in
{{- range slice . 1}}{{$path := .Path}}{{range .Flags}}{{if .Value}}
    {{range $i, $name := .Spellings}}{{if $i}}|{{end}}"{{$path}} {{$name}}"{{end}}) echo {{quote .Kind}} ;;{{end}}{{end}}{{end}}
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
        {{range $i, $e := slice . 1}}{{if $i}}|{{end}}"{{$e.Path}}"{{end}})
            command="${command:+$command }$word" ;;
        esac
    done
    [[ $current == "=" ]] && current=""
    COMPREPLY=()
    if [[ -n $flag ]]; then
        kind="$(_hailo_clip_value "$command" "$flag")"
    elif [[ $current == -* ]]; then
        kind="words{{range $program.Flags}}{{range .Spellings}} {{.}}{{end}}{{end}}"
        case "$command" in
{{- range slice . 1}}{{if .Flags}}
        "{{.Path}}") kind+="{{range .Flags}}{{range .Spellings}} {{.}}{{end}}{{end}}" ;;{{end}}{{end}}
        esac
    else
        case "$command" in
{{- range .}}
        "{{.Path}}") kind={{if .Commands}}"words{{range .Commands}} {{.Name}}{{end}}"{{else}}{{quote .Operand.Kind}}{{end}} ;;
{{- end}}
        esac
    fi
    case "$kind" in
    words*) mapfile -t COMPREPLY < <(compgen -W "${kind#words}" -- "$current") ;;
    files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    folders) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    esac
}

complete -F _hailo_clip hailo-clip
