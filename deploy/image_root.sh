#!/bin/sh
# Makes the file system of the container image: the relay, the libraries that it is linked with, and the few
# files that those look at. No shell, no package manager, nothing else.
#   deploy/image_root.sh BINARY FOLDER
# The Dockerfile runs it on Debian 12; the libraries are that machine's own, and what it knows of their
# packages goes along, so that scanners see which versions they are.
#
# Checked by tests/tests/deploy: shellcheck; what it makes is under 60 MB, and the relay runs in it as its only
# file system, read-only, without rights, as user 65532.
set -eu
umask 022

binary=$1
root=$2
here=$(cd "$(dirname "$0")" && pwd)
# The same user as in Google's distroless images.
user=65532

mkdir -p "$root/usr/bin" "$root/etc" "$root/tmp" "$root/var/lib/arc-relay" "$root/var/lib/dpkg/status.d"
install -m 755 "$binary" "$root/usr/bin/arc-relay"

# What the loader finds, and the loader itself.
for library in $(ldd "$binary" | awk '{ for (n = 1; n <= NF; n++) if ($n ~ /^\//) print $n }'); do
    mkdir -p "$root$(dirname "$library")"
    cp --dereference "$library" "$root$library"
    # By its name: dpkg knows /lib, which is /usr/lib by now.
    package=$(dpkg --search "*/$(basename "$(realpath "$library")")" | sed 's/:.*//; q')
    dpkg --status "$package" >"$root/var/lib/dpkg/status.d/$package"
    mkdir -p "$root/usr/share/doc/$package"
    cp --dereference "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
done

mkdir -p "$root/usr/share/doc/arc-relay"
cp "$here"/../LICENSE* "$root/usr/share/doc/arc-relay/"
cp --dereference /etc/os-release "$root/etc/os-release"
echo "arc-relay:x:$user:$user::/var/lib/arc-relay:/nonexistent" >"$root/etc/passwd"
echo "arc-relay:x:$user:" >"$root/etc/group"
# Names are looked up in /etc/hosts, then by DNS: seeds are names there.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
# As Docker would: whoever runs in it may look at it.
chmod 755 "$root"
chmod 1777 "$root/tmp"
chmod 700 "$root/var/lib/arc-relay"
chown "$user:$user" "$root/var/lib/arc-relay"
