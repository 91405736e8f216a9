{{- $program := index . 0 -}}
# fish completion of hailo-clip: "hailo-clip completion fish" prints it

# Whether the words so far are of the command $argv[1].
function __hailo_clip_at
    set -l words (commandline -opc)
    set -l command
    set -l value
    for word in $words[2..-1]
        if test -n "$value"
            set value
            continue
        end
        switch $word
            case {{range $program.Flags}}{{if .Value}}{{range .Spellings}}{{.}} {{end}}{{end}}{{end}}
                set value yes
            case '-*'
            case '*'
                switch "$command $word"
                    case {{range slice . 1}}{{fish (print " " .Path)}} {{end}}
                        set command "$command $word"
                end
        end
    end
    test "$command" = "$argv[1]"
end

complete -c hailo-clip -f
{{- define "value"}}{{if .Value}}{{if .File}} -r -F{{else}} -x{{end}}{{if .Words}} -a {{fish (join .Words " ")}}{{else if .Folder}} -a '(__fish_complete_directories)'{{end}}{{end}}{{end}}
{{- define "flag"}} -l {{.Long}}{{with .Short}} -s {{.}}{{end}}{{template "value" .}} -d {{fish (brief .Help)}}{{end}}
{{- range $program.Flags}}
complete -c hailo-clip{{template "flag" .}}{{end}}
{{- range .}}{{$at := fish (print "__hailo_clip_at " (fish (and .Path (print " " .Path))))}}
{{- range .Commands}}
complete -c hailo-clip -n {{$at}} -a {{fish .Name}} -d {{fish (brief .Help)}}{{end}}
{{- if .Path}}{{range .Flags}}
complete -c hailo-clip -n {{$at}}{{template "flag" .}}{{end}}{{end}}
{{- if not .Commands}}{{if .Operand.Words}}
complete -c hailo-clip -n {{$at}} -a {{fish (join .Operand.Words " ")}}{{else if .Operand.File}}
complete -c hailo-clip -n {{$at}} -F{{else if .Operand.Folder}}
complete -c hailo-clip -n {{$at}} -a '(__fish_complete_directories)'{{end}}{{end}}
{{- end}}
