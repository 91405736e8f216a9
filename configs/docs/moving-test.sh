#!/bin/bash
# moving-test.sh does what configs/docs/moving.md says, word for word, in a Debian that systemd has booted, with the former service's
# configuration and a stand-in for the service itself. Root only; "make deb-test" has made bin/_deb-root.tar, "make deb" the package.
# What the page cannot have here is a Hailo-10H: a drop-in gives the service the simulated chip and the demo model.
set -euo pipefail
cd "$(dirname "$0")/../.."
arch=$(dpkg --print-architecture) root=bin/_moving
deb=$(ls -t bin/hailo-clip_*_"$arch".deb | head -n 1)
[ -e bin/_deb-root.tar ] || { echo "moving-test: no bin/_deb-root.tar, run make deb-test first"; exit 1; }
rm -rf $root && mkdir -p $root && tar -C $root -xf bin/_deb-root.tar
mkdir -p $root/test $root/etc/hailo
cp configs/testdata/former-service.yaml $root/etc/hailo/hailo-clip.yaml
cp hailo/demo/samples/cat.jpg $root/test/image.jpg
cp "$deb" "$root/test/hailo-clip_0_arm64.deb" # whatever the machine is
for program in jq sudo perl; do # what a Raspberry Pi OS has
    chroot $root sh -c "command -v $program >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends $program; }" >bin/moving.log 2>&1 </dev/null
done
cat >$root/test/former.pl <<'END'
use IO::Socket::INET;
my $s = IO::Socket::INET->new(LocalAddr => "0.0.0.0:5000", Listen => 5, ReuseAddr => 1) or die $!;
while (my $c = $s->accept) {
    my $n = 0;
    while (<$c>) { $n = $1 if /^content-length: *(\d+)/i; last if /^\r?$/ }
    read($c, my $body, $n);
    my $b = '{"classifications":[{"text":"a photo of a cat","score":0.99,"rank":1},{"text":"a photo of a dog","score":0.01,"rank":2}],"inference_time_ms":100,"model":"clip-vit-b-32"}';
    print $c "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " . length($b) . "\r\n\r\n$b";
    close $c;
}
END
cat >$root/etc/systemd/system/hailo-clip.service <<'END'
[Service]
User=hailo-clip
Group=hailo-clip
WorkingDirectory=/var/lib/hailo-clip
StateDirectory=hailo-clip
ExecStart=/usr/bin/perl /opt/hailo-clip/former.pl
Restart=always
MemoryMax=3G
CPUQuota=80%
[Install]
WantedBy=multi-user.target
END
printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' >$root/etc/systemd/system/hailo-device-manager.service
mkdir -p $root/opt/hailo-clip && mv $root/test/former.pl $root/opt/hailo-clip/
# As the former service's installer does it.
chroot $root sh -c 'groupadd --system hailo-clip; useradd -r -s /usr/sbin/nologin -d /var/lib/hailo-clip -g hailo-clip hailo-clip; mkdir -p /var/lib/hailo-clip/models /var/lib/hailo-clip/cache; chown -R hailo-clip: /var/lib/hailo-clip
    systemctl enable -q hailo-clip hailo-device-manager'

# The blocks of the page, each a step. The simulated chip is put in after the installation; what needs the network is left out.
mkdir -p $root/test/steps
awk -v out=$root/test/steps/ '
    /^ *```sh/ { n++; inside = 1; file = sprintf("%s%02d", out, n); next }
    /^ *```/ { inside = 0 }
    inside { sub(/^  /, "", $0); print > file }' configs/docs/moving.md
cat >$root/test/run <<'END'
#!/bin/bash
cd /test
export DEBIAN_FRONTEND=noninteractive HOME=/root LC_ALL=C.UTF-8
systemctl start hailo-clip hailo-device-manager
for step in steps/*; do
    echo "== $step"; sed 's/^/    /' $step
    if grep -q 'models pull' $step; then echo "left out: it needs the network"; continue; fi
    sed -i 's/apt install /apt-get install -y -q --no-install-recommends /; s/apt remove /apt-get remove -y -q /; s/hailo-clip_\*_arm64/hailo-clip_0_arm64/' $step
    if bash -e -o pipefail $step; then echo "ok    $step"; else echo "FAIL  $step ($?)"; fi
    if grep -q 'apt-get install' $step; then
        mkdir -p /etc/systemd/system/hailo-clip.service.d
        printf '[Service]\nEnvironment=HAILO_CLIP_CLIP_BACKEND=sim HAILO_CLIP_CLIP_MODEL=demo HAILO_CLIP_SIM_VECTORS=model\n' >/etc/systemd/system/hailo-clip.service.d/simulated.conf
        systemctl daemon-reload
    fi
    if grep -q 'apt-get remove' $step; then
        curl -s -m 5 http://127.0.0.1:5000/v1/classify -d @request.json --retry 10 --retry-connrefused | grep -q '"inference_time_ms":100' && echo "ok    the former service answers again" || echo "FAIL  the former service does not answer"
    fi
done
echo "end of the page"
END
chmod 755 $root/test/run
cat >$root/etc/systemd/system/test.service <<'END'
[Unit]
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/test/run
StandardOutput=truncate:/test/log
StandardError=append:/test/log
END
timeout 600 systemd-nspawn -q --register=no --keep-unit -D $root --private-network --boot --console=pipe systemd.unit=test.service \
    systemd.wants=basic.target systemd.mask=console-getty.service >bin/moving.log 2>&1 </dev/null || true
cat $root/test/log
if grep -q '^FAIL ' $root/test/log || ! grep -q '^end of the page' $root/test/log; then exit 1; fi
rm -rf $root
