#!/bin/bash
# inside.sh SCENARIO is the part of test.sh that runs in a root that nobody needs afterwards. It says "ok" or "FAIL" of each thing, and
# "end of SCENARIO" when it has come to its end.
set -u
export DEBIAN_FRONTEND=noninteractive PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
old=/test/hailo-clip_0.9.0-1_$(dpkg --print-architecture).deb
new=/test/hailo-clip_0.10.0-1_$(dpkg --print-architecture).deb
old_broker=/test/hailo-clip-fleet_0.9.0-1_$(dpkg --print-architecture).deb
new_broker=/test/hailo-clip-fleet_0.10.0-1_$(dpkg --print-architecture).deb
config=/etc/hailo/hailo-clip.yaml state=/var/lib/hailo-clip unit=/etc/systemd/system/hailo-clip.service
url=http://127.0.0.1:5000
broker_state="/var/lib/hailo-clip-fleet /var/lib/private/hailo-clip-fleet" broker_wanted=/etc/systemd/system/multi-user.target.wants/hailo-clip-fleet.service

is() { # is WHAT COMMAND...: the command succeeds
    local what=$1 said
    shift
    if said=$("$@" 2>&1); then echo "ok    $what"; else echo "FAIL  $what: $*: ${said:0:3000}"; fi
}
not() { ! "$@"; }
says() { # says TEXT COMMAND...: the command prints the text, whatever its exit code
    local text=$1 said
    shift
    said=$("$@" 2>&1)
    case $said in *"$text"*) ;; *) echo "$said" && return 1 ;; esac
}
silent() { local said; said=$("$@" 2>&1) && [ -z "$said" ] || { echo "$said" && return 1; }; }
gone() { for f in "$@"; do [ ! -e "$f" ] && [ ! -L "$f" ] || { echo "$f is there" && return 1; }; done; }
install() { apt-get install -y -q --no-install-recommends --allow-downgrades "$@"; }
digest() { sha256sum "$@" | sha256sum; }
ask() { curl -sS --fail-with-body -m 60 "$@"; }
classify() { ask "$url/v1/classify?$1" -H "Content-Type: image/jpeg" --data-binary @/test/cat.jpg; }

# kept fills the state folder with what an upgrade must keep, and same_kept says that it is there.
keep() {
    ask -X PUT $url/v1/prompt-sets/pets -H "Content-Type: application/json" -d '{"labels": [{"name": "cat", "prompts": ["a photo of a cat"]}, {"name": "dog"}]}' &&
        ask -X PUT $url/v1/streams/gate -H "Content-Type: application/json" -d '{"prompt_set": "pets", "events": {"store": true}}' &&
        ask -X POST $url/v1/prompt-sets/pets/examples -H "Content-Type: application/json" -d "{\"label\": \"cat\", \"image\": \"$(base64 -w0 /test/cat.jpg)\"}" &&
        classify 'prompts=a+photo+of+a+cat&prompts=a+photo+of+a+dog'
}
same_kept() {
    says '"pets"' ask $url/v1/prompt-sets && says '"gate"' ask $url/v1/streams && says '"examples":[{"id"' ask $url/v1/prompt-sets/pets &&
        says '"cat"' classify 'prompt_set=pets'
}
encoded() { ask $url/v1/stats | grep -o '"encoded":[0-9]*' | head -n 1; } # prompts since the start
joined() { # the service is in the fleet within a minute, or not, for $1 true or false
    local n
    for n in $(seq 600); do ! says "\"connected\":$1" ask $url/v1/fleet >/dev/null || return 0; sleep 0.1; done
    ask $url/v1/fleet && return 1
}
active() { systemctl -q is-active hailo-clip; }
version_is() { says "\"version\":\"$1\"" ask $url/health; }

case $1 in
unbooted) # as in an image that is being built: systemd does not run
    groupadd --system hailo
    is "install" install $old
    is "user, state folder" [ "$(stat -c '%U %G %a' $state)" = "hailo-clip hailo-clip 700" ]
    is "the user is in the group of the device" sh -c "id -nG hailo-clip | tr ' ' '\n' | grep -qx hailo"
    is "configuration is written" cmp $config /test/etc.yaml
    is "enabled" [ -L /etc/systemd/system/multi-user.target.wants/hailo-clip.service ]
    is "socket is not enabled" gone /etc/systemd/system/sockets.target.wants/hailo-clip.socket
    is "systemd-analyze verify finds nothing" silent systemd-analyze verify hailo-clip.service hailo-clip.socket
    is "systemd-analyze security: exposure at most 2.0" systemd-analyze security --offline=true --threshold=20 hailo-clip.service
    echo "      $(systemd-analyze security --offline=true hailo-clip.service 2>&1 | tail -n 1)"
    is "programs run" says 0.9.0 hailo-clip version
    is "completion of bash loads" bash -c '. /usr/share/bash-completion/completions/hailo-clip && complete -p hailo-clip'
    is "verify without a service fails" not hailo-clip verify
    is "verify says how" says "sudo systemctl start hailo-clip" hailo-clip verify --json
    before=$(find /etc /var/lib/hailo-clip /var/lib/misc -newer /test/etc.yaml -type f ! -path '/etc/ld*' | sort | xargs ls -la | md5sum)
    is "postinst again" /var/lib/dpkg/info/hailo-clip.postinst configure 0.9.0-1
    is "  changes nothing" [ "$before" = "$(find /etc /var/lib/hailo-clip /var/lib/misc -newer /test/etc.yaml -type f ! -path '/etc/ld*' | sort | xargs ls -la | md5sum)" ]
    touch $state/models.kept
    is "upgrade" install $new
    is "remove" apt-get remove -y -q hailo-clip
    is "  leaves configuration and state" ls $config $state/models.kept
    is "  nothing else" gone /usr/bin/hailo-clip /usr/lib/hailo-clip /usr/lib/systemd/system/hailo-clip.service
    rm $config
    is "install again" install $new
    is "  a configuration that was removed stays away" gone $config
    is "purge" apt-get purge -y -q hailo-clip
    is "  leaves nothing" gone $config /etc/hailo $state /var/lib/misc/hailo-clip.yaml.sha256 /etc/systemd/system/multi-user.target.wants/hailo-clip.service
    is "purge again" dpkg --purge hailo-clip
    mv /usr/bin/deb-systemd-helper /usr/bin/deb-systemd-invoke /test/
    is "install without deb-systemd-helper" install $new
    is "  enabled" [ -L /etc/systemd/system/multi-user.target.wants/hailo-clip.service ]
    ln -s /dev/null $unit
    is "a masked unit is nobody else's" not says "goes before" install --reinstall $new
    is "purge with an unchanged configuration" apt-get purge -y -q hailo-clip
    is "  leaves nothing" gone $config /etc/hailo $state /etc/systemd/system/multi-user.target.wants/hailo-clip.service
    is "install the broker alone" install $new_broker
    is "  it is not enabled" gone $broker_wanted
    is "  it runs" says "0.10.0" hailo-clip-fleet --version
    systemctl enable hailo-clip-fleet
    is "purge of the broker" apt-get purge -y -q hailo-clip-fleet
    is "  leaves nothing" gone $broker_wanted $broker_state /usr/bin/hailo-clip-fleet
    ;;

fleet) # the broker beside a service that is its node
    is "install" install $old $old_broker
    is "the broker is neither enabled nor started" not sh -c "systemctl -q is-enabled hailo-clip-fleet || systemctl -q is-active hailo-clip-fleet"
    is "systemd-analyze verify finds nothing" silent systemd-analyze verify hailo-clip-fleet.service
    is "systemd-analyze security: exposure at most 2.0" systemd-analyze security --threshold=20 hailo-clip-fleet.service
    is "enable" systemctl enable --now hailo-clip-fleet
    pid=$(systemctl show hailo-clip-fleet -p MainPID --value)
    is "as a user of its own, without capabilities, with a filter" [ "$(grep -cE '^(Uid:\s+[1-9]|CapBnd:\s+0+$|NoNewPrivs:\s+1|Seccomp:\s+2)' /proc/$pid/status)" = 4 ]
    is "its streams are nobody else's" [ "$(stat -c %a /var/lib/private/hailo-clip-fleet)" = 700 ]
    printf 'clip:\n  backend: sim\n  model: demo\nsim:\n  vectors: model\nfleet:\n  url: nats://127.0.0.1:4222\n  node: one\n' >$config
    is "restart as a node" systemctl restart hailo-clip
    is "  it has joined" joined true
    is "  it says so" says "one" hailo-clip fleet status
    is "verify" hailo-clip verify
    is "prompts, sets, examples, streams" keep
    is "upgrade of the broker" install $new_broker
    is "  it runs anew" [ "$(systemctl show hailo-clip-fleet -p MainPID --value)" != "$pid" ]
    is "  the node is there again" joined true
    is "  sets, examples and streams are the same" same_kept
    is "  and can be changed" ask -X PUT $url/v1/prompt-sets/late -H "Content-Type: application/json" -d '{"labels": [{"name": "cat"}]}'
    is "stop" systemctl stop hailo-clip-fleet
    is "  the service works alone" sh -c "curl -sS --fail-with-body -m 60 '$url/v1/classify?prompt_set=pets' -H 'Content-Type: image/jpeg' --data-binary @/test/cat.jpg"
    is "  and says so" joined false
    is "upgrade" install --reinstall $new_broker
    is "  it stays stopped" not systemctl -q is-active hailo-clip-fleet
    is "start" systemctl start hailo-clip-fleet
    is "  the node is there again" joined true
    is "remove" apt-get remove -y -q hailo-clip-fleet
    is "  it has stopped" joined false
    is "  its streams stay" ls /var/lib/private/hailo-clip-fleet/jetstream
    is "install again" sh -c "apt-get install -y -q --no-install-recommends $new_broker && systemctl start hailo-clip-fleet"
    is "  the set is there" sh -c "until hailo-clip fleet status | grep -q one; do sleep 0.1; done; curl -sS --fail-with-body $url/v1/prompt-sets/late"
    is "purge" apt-get purge -y -q hailo-clip-fleet
    is "  leaves nothing" gone $broker_wanted $broker_state /usr/bin/hailo-clip-fleet /usr/lib/systemd/system/hailo-clip-fleet.service
    is "  and the service as it was" same_kept
    ;;

life) # of a service: CPU, simulated chip, upgrade under load, stop, removal, purge
    is "install" install $old
    is "it runs" active
    is "verify, with nothing but the installation" hailo-clip verify
    hailo-clip verify | sed 's/^/      /'
    pid=$(systemctl show hailo-clip -p MainPID --value)
    is "as its user, without capabilities, with a filter" [ "$(grep -cE '^(Uid:\s+'"$(id -u hailo-clip)"'\s|CapBnd:\s+0+$|NoNewPrivs:\s+1|Seccomp:\s+2)' /proc/$pid/status)" = 4 ]
    is "its file system is read-only" says "Read-only file system" nsenter -t "$pid" -m touch /usr/x
    is "  but for its state" nsenter -t "$pid" -m touch $state/x
    is "udev reads the rule" says "/70-hailo-clip.rules" udevadm test /sys/devices/virtual/mem/null
    is "  and finds nothing wrong with it" not says "/70-hailo-clip.rules:" udevadm test /sys/devices/virtual/mem/null
    printf 'clip:\n  backend: sim\n  model: demo\nsim:\n  vectors: model\n' >$config
    is "restart with the simulated chip" systemctl restart hailo-clip
    is "verify on the simulated chip" hailo-clip verify
    hailo-clip verify | sed 's/^/      /'
    is "prompts, sets, examples, streams" keep
    is "reload" systemctl reload hailo-clip
    is "it runs still" active

    # ffmpeg under the same restrictions
    sed -e '/^ExecReload/d; /^Watchdog/d; s/^Type=.*/Type=oneshot/; s/^Restart=.*/Restart=no/; s/^MemoryMax=.*/MemoryMax=1G/' \
        -e 's|^ExecStart=.*|ExecStart=/bin/sh -c "ffmpeg -v error -f lavfi -i testsrc=d=1:r=5 -c:v libx264 -f mpegts pipe: \| ffmpeg -v error -i pipe: -f mjpeg pipe: \| head -c 3 \| od -An -tx1"|' \
        /usr/lib/systemd/system/hailo-clip.service >/run/systemd/system/ffmpeg-test.service
    systemctl daemon-reload
    is "ffmpeg encodes and decodes under the unit's restrictions" systemctl start ffmpeg-test
    is "  an image" says "ff d8 ff" journalctl --no-pager -u ffmpeg-test

    is "socket of systemd" sh -c 'systemctl stop hailo-clip && systemctl enable --now hailo-clip.socket && systemctl start hailo-clip'
    is "verify" hailo-clip verify
    (
        n=0 bad=0
        while [ ! -e /test/stop ]; do
            n=$((n + 1))
            classify prompt_set=pets >/dev/null 2>>/test/bad.log || bad=$((bad + 1))
        done
        echo "$n $bad" >/test/load
    ) &
    was=$(digest $config)
    is "upgrade under load" install $new
    is "  the new version serves" version_is v0.10.0
    touch /test/stop && wait
    read -r n bad </test/load
    is "  no request was lost ($n requests)" [ "$bad" = 0 ]
    [ "$bad" = 0 ] || cat /test/bad.log
    is "  the configuration is the same" [ "$was" = "$(digest $config)" ]
    is "  sets, examples and streams are the same" same_kept
    is "  and no prompt was encoded anew" sh -c "classify() { :; }; curl -sS '$url/v1/classify?prompts=a+photo+of+a+cat&prompts=a+photo+of+a+dog' -H 'Content-Type: image/jpeg' --data-binary @/test/cat.jpg >/dev/null && curl -sS $url/v1/stats | grep -q '\"encoded\":0'"
    is "verify" hailo-clip verify

    is "stop by the administrator" systemctl stop hailo-clip hailo-clip.socket
    is "upgrade" install --reinstall $new
    is "  it stays stopped" not active
    systemctl mask -q hailo-clip
    is "verify knows a masked unit" says "is masked" hailo-clip verify --json
    systemctl unmask -q hailo-clip
    systemctl disable -q hailo-clip.socket
    is "start" systemctl start hailo-clip
    is "remove" apt-get remove -y -q hailo-clip
    is "  it has stopped" not curl -sS -m 5 $url/health
    is "  all stays" sh -c "[ '$was' = '$(digest $config)' ] && ls $state/prompt-sets.db $state/streams.db $state/prompts.db"
    is "install again" install $new
    is "  all is there" same_kept
    is "purge" apt-get purge -y -q hailo-clip
    is "  a configuration that was changed stays" [ "$was" = "$(digest $config)" ]
    is "  the rest has gone" gone $state /var/lib/misc/hailo-clip.yaml.sha256 /etc/systemd/system/multi-user.target.wants/hailo-clip.service
    ;;

former) # the Python service has the name, the file and the port
    mkdir -p /etc/hailo
    printf 'server:\n  host: 0.0.0.0\n  port: 5000\nclip:\n  model: clip-vit-base-patch32\n  batch_size: 1\nresource_limits:\n  memory_max: 3G\n  cpu_quota: "80%%"\n' >$config
    cat >/test/former.pl <<'END'
use IO::Socket::INET;
my $s = IO::Socket::INET->new(LocalAddr => "0.0.0.0:5000", Listen => 5, ReuseAddr => 1) or die $!;
while (my $c = $s->accept) {
    while (<$c>) { last if /^\r?$/ }
    my $b = '{"status":"healthy","service":"hailo-clip","model_loaded":true,"model":"clip"}';
    print $c "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " . length($b) . "\r\n\r\n$b";
    close $c;
}
END
    printf '[Service]\nExecStart=/usr/bin/perl /test/former.pl\nCPUQuota=80%%\n[Install]\nWantedBy=multi-user.target\n' >$unit
    systemctl daemon-reload && systemctl enable -q --now hailo-clip
    files=$(digest $config $unit) pid=$(systemctl show hailo-clip -p MainPID --value)
    same() { [ "$files" = "$(digest $config $unit)" ] && [ "$pid" = "$(systemctl show hailo-clip -p MainPID --value)" ] && says model_loaded ask $url/health &&
        [ "$(readlink /etc/systemd/system/multi-user.target.wants/hailo-clip.service)" = $unit ]; }
    until same; do sleep 0.1; done # it listens
    is "install says who is in the way" says "$unit goes before the package's unit" install $old
    is "  and leaves it alone" same
    is "verify names the unit" says "$unit goes before the unit of the package" hailo-clip verify --json
    is "  and the service" says "Python" hailo-clip verify --json
    is "  and fails" not hailo-clip verify
    is "upgrade leaves it alone" install $new
    is "  still" same
    is "remove leaves it alone" apt-get remove -y -q hailo-clip
    is "  still" same
    is "purge leaves it alone" apt-get purge -y -q hailo-clip
    is "  still" same
    is "install" install $new
    # what postinst and verify tell to do
    systemctl disable -q --now hailo-clip && rm $unit && systemctl daemon-reload && systemctl enable -q --now hailo-clip
    is "postinst says where to look when the service does not start" says "journalctl -u hailo-clip" sh -c "systemctl reset-failed hailo-clip; /var/lib/dpkg/info/hailo-clip.postinst configure"
    is "changing over: fails by the file's model, which is not installed" sh -c "sleep 1; journalctl --no-pager -u hailo-clip | grep -q clip-vit"
    sed -i 's/clip-vit-base-patch32/auto/' $config
    systemctl reset-failed hailo-clip
    is "  with the model auto it starts" systemctl restart hailo-clip
    is "verify" hailo-clip verify
    is "purge" apt-get purge -y -q hailo-clip
    is "  leaves the former service's file" grep -q batch_size $config
    ;;

dynamic) # a unit with DynamicUser=yes, as "config unit" printed it in former versions
    is "install" install $old
    systemctl stop hailo-clip
    sed 's/^User=.*/DynamicUser=yes/' /usr/lib/systemd/system/hailo-clip.service >$unit
    systemctl daemon-reload && systemctl start hailo-clip
    is "it runs with a user of its own" [ "$(readlink $state)" = private/hailo-clip ]
    is "prompts, sets, examples, streams" keep
    was=$(digest $unit)
    is "upgrade says who is in the way" says "$unit goes before" install $new
    is "  and leaves it alone" sh -c "[ '$was' = '$(digest $unit)' ] && [ -L $state ] && systemctl -q is-active hailo-clip"
    is "verify names it" says "$unit goes before" hailo-clip verify --json
    systemctl disable -q --now hailo-clip
    rm $unit && systemctl daemon-reload
    is "upgrade without it" install --reinstall $new
    is "  moves the state folder" [ "$(stat -c '%F %U' $state)" = "directory hailo-clip" ]
    is "  wholly" gone /var/lib/private/hailo-clip
    is "enable" systemctl enable --now hailo-clip
    is "  all is there" same_kept
    is "verify" hailo-clip verify
    ;;

unpackaged) # the program alone, and its own commands
    dpkg-deb -x $new /test/x && mkdir -p /usr/local/bin && cp /test/x/usr/bin/hailo-clip /usr/local/bin/
    is "verify knows no unit" says "sudo hailo-clip service install" hailo-clip verify --json
    is "dry run" says "write $unit" hailo-clip service install --dry-run
    is "  does nothing" gone $unit $config
    mkdir -p $state/lib && cp /test/x/usr/lib/hailo-clip/libonnx* $state/lib/ # as setup would
    is "install" hailo-clip service install
    is "  it runs" active
    is "  enabled" systemctl -q is-enabled hailo-clip
    is "verify" hailo-clip verify
    is "status" hailo-clip service status
    is "install again" hailo-clip service install
    echo "# mine" >>$unit
    is "a unit that was changed is left alone" says "is left alone" hailo-clip service install
    is "  also by uninstall" says "is left alone" hailo-clip service uninstall
    sed -i '$d' $unit
    is "uninstall" hailo-clip service uninstall
    is "  it has gone" gone $unit
    is "  it has stopped" not active
    is "  state and configuration stay" ls $state/lib $config
    is "the package takes over" install $new
    is "verify" hailo-clip verify
    ;;
esac
echo "end of $1"
