#!/bin/sh
# Lays out the file system of an image: one program, the libraries it is linked to, the certificate
# authorities, a user without rights. No shell, no package manager, nothing else.
#
#   images/rootfs.sh PROGRAM FOLDER
#
# FOLDER/base gets what all images of the project share, FOLDER/program the rest, FOLDER/data what
# belongs to the user of the image. images/*.Dockerfile and scripts/images.sh both build from these
# three, so what runs in tests is what users get.
set -eu
program=$1
target=$2
user_id=10001

rm -rf "$target"
mkdir -p "$target/base/etc/ssl/certs" "$target/base/tmp" "$target/base/usr/lib" "$target/base/usr/lib64" \
  "$target/program" "$target/data/var/tempo"
ln -s usr/lib "$target/base/lib"
ln -s usr/lib64 "$target/base/lib64"
chmod 1777 "$target/base/tmp"

# Debian's and the distribution-neutral places of the authorities are one file.
certificates=/etc/ssl/certs/ca-certificates.crt
[ -f "$certificates" ] || {
  echo "rootfs: $certificates is missing; install ca-certificates" >&2
  exit 1
}
cp -L "$certificates" "$target/base/etc/ssl/certs/ca-certificates.crt"
ln -s certs/ca-certificates.crt "$target/base/etc/ssl/cert.pem"

cat >"$target/base/etc/passwd" <<TEXT
root:x:0:0:root:/:/sbin/nologin
tempo:x:$user_id:$user_id:tempo:/var/tempo:/sbin/nologin
TEXT
cat >"$target/base/etc/group" <<TEXT
root:x:0:
tempo:x:$user_id:
TEXT
echo 'hosts: files dns' >"$target/base/etc/nsswitch.conf"

# Every library is put where the loader looks for it: the path that ldd tells.
ldd "$program" | sed -n 's/.*=> \(\/[^ ]*\) (.*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' |
  while read -r library; do
    case $library in
      /usr/*) place=$library ;;
      *) place=/usr$library ;;
    esac
    mkdir -p "$target/base$(dirname "$place")"
    cp -L "$library" "$target/base$place"
    chmod 755 "$target/base$place"
  done

cp "$program" "$target/program/$(basename "$program")"
chmod 755 "$target/program/$(basename "$program")"
