#!/bin/bash
# test.sh installs, upgrades, removes and purges the package in Debian roots of its own, with and without systemd as the first
# process, and runs lintian over what "make deb" has built. Root only: it makes roots with debootstrap (kept in
# bin/_deb-root.tar) and boots them with systemd-nspawn, without a network.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/configs/deb cache=bin/_deb-root arch=$(dpkg --print-architecture) suite=${DEB_SUITE:-bookworm} mirror=${DEB_MIRROR:-}
[ "$(id -u)" = 0 ] || { echo "deb-test: only root can make and boot a root"; exit 1; }
missing=()
command -v debootstrap >/dev/null || missing+=(debootstrap)
command -v systemd-nspawn >/dev/null || missing+=(systemd-container)
command -v lintian >/dev/null || missing+=(lintian)
[ ${#missing[@]} = 0 ] || apt-get install -y -q "${missing[@]}" >/dev/null

failed=0
fail() { echo "FAIL  $*" && failed=1; }

if [ $# = 0 ]; then # else only the scenarios that are named, with the packages of the last time
echo "== what make deb has built"
version=$($here/version.sh "$(git describe --tags --always --dirty)" "$(git rev-list --count HEAD)")
for a in amd64 arm64; do
    deb=bin/hailo-clip_${version}_$a.deb
    [ -e "$deb" ] || { fail "no $deb"; continue; }
    lintian --allow-root --fail-on error "$deb" || fail "lintian of $deb"
    [ "$(dpkg-deb -f "$deb" Architecture)" = $a ] || fail "architecture of $deb"
    mkdir -p bin/deb/check && rm -rf bin/deb/check && dpkg-deb -x "$deb" bin/deb/check
    hidden=$(grep -c '^MemoryDenyWriteExecute=yes' bin/deb/check/usr/lib/systemd/system/hailo-clip.service || true)
    [ "$a:$hidden" = arm64:1 ] || [ "$a:$hidden" = amd64:0 ] || fail "MemoryDenyWriteExecute of $a"
    echo "ok    $deb"
    broker=bin/hailo-clip-fleet_${version}_$a.deb
    [ -e "$broker" ] || { fail "no $broker"; continue; }
    lintian --allow-root --fail-on error "$broker" || fail "lintian of $broker"
    dpkg-deb -c "$broker" | grep -q usr/lib/systemd/system/hailo-clip-fleet.service || fail "unit of $broker"
    echo "ok    $broker"
done
# What the unit forbids on arm64 the program must not do: memory that is written and executed.
if command -v qemu-aarch64-static >/dev/null && [ -d /usr/aarch64-linux-gnu ]; then
    trace=$PWD/bin/deb/trace
    printf 'labels: [{name: cat}, {name: dog}]\n' >bin/deb/pets.yaml
    arm64() { # with patience, because qemu is slow and tells every system call
        HAILO_CLIP_STATE_DIR=$PWD/bin/deb/state HAILO_CLIP_PERFORMANCE_WARMUP_ENABLED=false HAILO_CLIP_PERFORMANCE_REQUEST_TIMEOUT=10m HAILO_CLIP_HEALTH_PROBE_INTERVAL=0 \
            qemu-aarch64-static -strace -cpu cortex-a76 -L /usr/aarch64-linux-gnu bin/deb/check/usr/bin/hailo-clip "$@" --config configs/etc.yaml >bin/deb/answer 2>>"$trace" ||
            fail "the arm64 program: $*"
        grep -q "$says" bin/deb/answer || fail "the arm64 program: $*: $(cat bin/deb/answer)"
    }
    rm -rf bin/deb/state "$trace"
    says='made, 2 labels' arm64 prompt-sets put bin/deb/pets.yaml # the service and a client
    says='a photo of a cat' arm64 classify hailo/demo/samples/cat.jpg -p "a photo of a cat" -p "a photo of a dog"
    if grep -E '(mmap|mprotect)\(.*(PROT_EXEC[^,]*PROT_WRITE|PROT_WRITE[^,]*PROT_EXEC)|mprotect\(.*PROT_EXEC' "$trace"; then fail "the arm64 program maps memory to write and execute"; fi
    [ "$(grep -c 'mmap(' "$trace")" -gt 20 ] || fail "qemu traces nothing"
    echo "ok    the arm64 program serves and classifies, and never maps memory to write and execute ($(grep -cE 'mmap|mprotect' "$trace") calls)"
fi

echo "== two versions"
export DEB_COMPRESSION=none # nobody keeps them
for v in v0.9.0 v0.10.0; do "$here/build.sh" "$arch" $v >/dev/null; done
cp "bin/hailo-clip_0.9.0-1_$arch.deb" bin/deb/again.deb
"$here/build.sh" "$arch" v0.9.0 >/dev/null
cmp "bin/hailo-clip_0.9.0-1_$arch.deb" bin/deb/again.deb && echo "ok    the same tree makes the same package, byte for byte" || fail "two builds differ"
fi

if [ ! -e "$cache.tar" ]; then
    echo "== a root of $suite"
    rm -rf "$cache"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,udev,init-system-helpers,libturbojpeg0,ca-certificates,curl,man-db \
        "$suite" "$cache" ${mirror:+"$mirror"} >bin/_deb-root.log
    cp /etc/resolv.conf "$cache/etc/resolv.conf"
    chroot "$cache" sh -c 'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends ffmpeg && apt-get clean' >>bin/_deb-root.log 2>&1
    tar -C "$cache" -cf "$cache.tar" . && rm -rf "$cache"
fi

run() { # run SCENARIO [boot]
    echo "== $1"
    local root=bin/deb/_run # which go list does not enter
    rm -rf "$root" && mkdir -p "$root" && tar -C "$root" -xf "$cache.tar"
    mkdir "$root/test"
    cp "$here"/inside.sh "bin/hailo-clip_0.9.0-1_$arch.deb" "bin/hailo-clip_0.10.0-1_$arch.deb" "bin/hailo-clip-fleet_0.9.0-1_$arch.deb" "bin/hailo-clip-fleet_0.10.0-1_$arch.deb" \
        hailo/demo/samples/cat.jpg configs/etc.yaml "$root/test/"
    if [ "${2:-}" != boot ]; then
        chroot "$root" /test/inside.sh "$1" >bin/deb/log 2>&1 </dev/null || true
    else
        cat >"$root/etc/systemd/system/test.service" <<END
[Unit]
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
Environment=HOME=/root
ExecStart=/test/inside.sh $1
StandardOutput=truncate:/test/log
StandardError=append:/test/log
END
        timeout 600 systemd-nspawn -q --register=no --keep-unit -D "$root" --private-network --boot --console=pipe systemd.unit=test.service \
            systemd.wants=basic.target systemd.mask=console-getty.service >bin/deb/boot.log 2>&1 </dev/null || true
        cp "$root/test/log" bin/deb/log 2>/dev/null || true
    fi
    grep -E '^(ok|FAIL) ' bin/deb/log || true
    if grep -q '^FAIL ' bin/deb/log || [ "$(tail -n 1 bin/deb/log)" != "end of $1" ]; then
        fail "$1; all that was said:"
        tail -n 60 bin/deb/log bin/deb/boot.log 2>/dev/null || true
    fi
}
scenarios=("$@")
[ ${#scenarios[@]} -gt 0 ] || scenarios=(unbooted life former dynamic unpackaged fleet)
for s in "${scenarios[@]}"; do run "$s" "$([ "$s" = unbooted ] || echo boot)"; done
rm -rf bin/deb/_run bin/hailo-clip{,-fleet}_0.{9,10}.0-1_"$arch".deb
[ $failed = 0 ] && echo "deb-test: all is well"
exit $failed
