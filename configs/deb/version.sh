#!/bin/sh
# version.sh DESCRIBED COUNT prints the Debian version of what "git describe --tags --always --dirty" calls DESCRIBED, in a
# tree of COUNT commits. Versions grow with time: 1.2.0~rc1 < 1.2.0 < 1.2.0+3.gabc < 1.2.1; what is older than the first tag
# is 0~COUNT.gabc. The revision of the package is always 1.
set -e
described=${1:?} dirty=
case $described in
*-dirty) described=${described%-dirty} dirty=+dirty ;;
esac
after=
case $described in
*-[0-9]*-g[0-9a-f]*) # so many commits after the tag
    commit=${described##*-}
    rest=${described%-*}
    after=+${rest##*-}.$commit
    described=${rest%-*}
    ;;
esac
case $described in
v[0-9]* | [0-9]*.[0-9]*) version=$(printf %s "${described#v}" | sed 's/-/~/; s/[^A-Za-z0-9.+~]/./g') ;;
unknown) version="0~${2:-0}.unknown" ;;
*) version="0~${2:-0}.g$(printf %s "$described" | tr -cd 'A-Za-z0-9')" ;;
esac
echo "$version$after$dirty-1"
