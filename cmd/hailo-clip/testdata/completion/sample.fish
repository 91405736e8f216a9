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
            case -l --level 
                set value yes
            case '-*'
            case '*'
                switch "$command $word"
                    case ' run' ' model' ' model pull' ' model show' 
                        set command "$command $word"
                end
        end
    end
    test "$command" = "$argv[1]"
end

complete -c hailo-clip -f
complete -c hailo-clip -l help -s h -d 'Show context-sensitive help'
complete -c hailo-clip -l level -s l -x -a 'low high' -d 'How it\'s done'
complete -c hailo-clip -n '__hailo_clip_at \'\'' -a 'run' -d 'Run it; don\'t wait'
complete -c hailo-clip -n '__hailo_clip_at \'\'' -a 'model' -d 'Models'
complete -c hailo-clip -n '__hailo_clip_at \' run\'' -l dir -x -a '(__fish_complete_directories)' -d 'A folder: "here" or there'
complete -c hailo-clip -n '__hailo_clip_at \' run\'' -l out -s o -r -F -d '.dots and \'quotes\''
complete -c hailo-clip -n '__hailo_clip_at \' run\'' -l quiet -d 'Say $nothing'
complete -c hailo-clip -n '__hailo_clip_at \' run\'' -F
complete -c hailo-clip -n '__hailo_clip_at \' model\'' -a 'pull' -d 'Fetch one'
complete -c hailo-clip -n '__hailo_clip_at \' model\'' -a 'show' -d 'Show one'
complete -c hailo-clip -n '__hailo_clip_at \' model\'' -l deep -d 'All of it'
complete -c hailo-clip -n '__hailo_clip_at \' model pull\'' -a 'demo clip-resnet-50 clip-resnet-50x4 clip-vit-b-16-int8 clip-vit-b-16 clip-vit-b-32-int8 clip-vit-b-32 clip-vit-l-14-laion2b tinyclip-vit-39m-16-int8 tinyclip-vit-39m-16 tinyclip-vit-40m-32-int8 tinyclip-vit-40m-32 tinyclip-vit-61m-32 tinyclip-vit-8m-16-int8 tinyclip-vit-8m-16'
complete -c hailo-clip -n '__hailo_clip_at \' model show\'' -l deep -d 'All of it'
