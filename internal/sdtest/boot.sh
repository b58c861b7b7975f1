# Run as PID 1 of new mount, PID, UTS and IPC namespaces, in a cgroup made for it: makes
# a root directory of $ROOT that may be written to, and becomes systemd.
if [ "${1-}" != inside ]; then
	exec unshare --cgroup /bin/sh -euc "$SCRIPT" boot inside
fi
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$BASE/root"
cd "$BASE/root"
mkdir -p upper/etc upper/usr/lib/systemd/system work merged

# None of the host's own units is to start, and nothing is to be mounted, loaded or
# checked. A device 0, 0 stands for what is not there.
units=usr/lib/systemd/system
for gone in etc/systemd etc/fstab usr/lib/systemd/system-generators \
	$units/sysinit.target.wants $units/local-fs.target.wants $units/sockets.target.wants \
	$units/multi-user.target.wants $units/timers.target.wants $units/systemd-journald-audit.socket; do
	mknod "upper/$gone" c 0 0
done
mount -t overlay -o "lowerdir=$ROOT,upperdir=$PWD/upper,workdir=$PWD/work" overlay merged
cd merged

mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys # systemd sets limits there, which are the host's, too
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs var/log
mount -t tmpfs -o mode=755 tmpfs dev
for d in null zero full random urandom tty; do
	: >dev/$d
	mount --bind /dev/$d dev/$d
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mkdir -p ".$BASE/shared"
mount --bind "$BASE/shared" ".$BASE/shared"
mkdir -p run/systemd/system
cat >run/systemd/system/sdtest.target <<X
[Unit]
Requires=sysinit.target systemd-journald.service
After=sysinit.target systemd-journald.service
AllowIsolate=yes
X

mkdir -p run/old
pivot_root . run/old
umount -l /run/old
rmdir /run/old
exec env -i container=sdtest PATH=/usr/sbin:/usr/bin:/sbin:/bin "NOTIFY_SOCKET=$READY" \
	setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio \
	/lib/systemd/systemd --unit=sdtest.target
