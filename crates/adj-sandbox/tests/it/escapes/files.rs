//! Reading, changing or making files where a command has no business.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use super::Harm::{Broken, Leaked, Seen};
use super::{Case, case};
use crate::stage::{CANARY, Stage};

pub(super) const CASES: &[Case] = &[
    case("read outside", "cat $OUT/secret", Leaked),
    case("read by dots", "cat ../outside/secret", Leaked),
    case("read through a symlink", "ln -s $OUT/secret link; cat link", Leaked),
    case("read through a symlinked folder", "ln -s $OUT link; cat link/secret", Leaked),
    case("read through a symlink that was there before", "cat before", Leaked).after(|stage| {
        std::os::unix::fs::symlink(stage.outside.join("secret"), stage.workspace.join("before")).expect("a link");
    }),
    case("read through a hard link", "ln $OUT/secret h && cat h", Leaked),
    case("read through /proc/self/root", "cat /proc/self/root$OUT/secret", Leaked),
    case("read through /proc/self/cwd", "cat /proc/self/cwd/../outside/secret", Leaked),
    case("read through /proc/thread-self/root", "cat /proc/thread-self/root$OUT/secret", Leaked),
    case("read through a parent's root", "cat /proc/$PPID/root$OUT/secret", Leaked),
    case("read through any process's root", "for p in /proc/[0-9]*; do cat $p/root$OUT/secret; done", Leaked),
    case("read through the first process's root", "cat /proc/1/root$OUT/secret", Leaked).by_root().where_("a first process that root may look into", may_look_into_first),
    case("read through the caller's root", "cat /proc/$OWN/root$OUT/secret", Leaked),
    case("read through the caller's folder", "cat /proc/$OWN/cwd/Cargo.toml && echo BROKEN", Broken)
        .where_("a manifest where the tests were started", || Path::new("Cargo.toml").exists()),
    case("the first process's program", "head -c 4 /proc/1/exe | cmp -s - <(head -c 4 /bin/true) && echo BROKEN", Broken).by_root().where_("a first process that root may look into", may_look_into_first),
    case("climb out of a deleted folder", "mkdir -p d/e; cd d/e; rm -r $WS/d; cat ../../../outside/secret", Leaked),
    case("climb out of a moved folder", "mkdir -p d/e; cd d/e; mv $WS/d/e $WS/f; cat ../../outside/secret", Leaked),
    case("climb out by very many dots", "cat $(printf '../%.0s' {1..100})$OUT/secret", Leaked),
    case("host's temporary files", "ls $OUT/.. | grep -q outside && echo BROKEN", Broken),
    case("another workspace", "cat ../another/notes", Leaked).after(|stage| {
        let another = stage.workspace.with_file_name("another");
        fs::create_dir(&another).expect("a folder");
        fs::write(another.join("notes"), CANARY).expect("a file");
    }),
    case("write outside", "echo x > $OUT/file", Seen(is_changed)),
    case("append outside", "echo x >> $OUT/file", Seen(is_changed)),
    case("truncate outside", "truncate -s 0 $OUT/file", Seen(is_changed)),
    case("delete outside", "rm $OUT/file", Seen(is_changed)),
    case("write through a symlink", "ln -s $OUT/file l; echo x > l", Seen(is_changed)),
    case("write through a hard link", "ln $OUT/file l; echo x > l", Seen(is_changed)),
    case("write through the caller's root", "echo x > /proc/$OWN/root$OUT/file", Seen(is_changed)),
    case("rename over", "echo x > n; mv n $OUT/file", Seen(is_changed)),
    case("exchange by name", "$ATTACK exchange file.txt $OUT/file", Seen(is_changed)),
    case("move a file out", "mv file.txt $OUT/", Seen(|stage| stage.outside.join("file.txt").exists())),
    case("change mode outside", "chmod 777 $OUT/file", Seen(|s| metadata(&s.outside.join("file")).mode() & 0o777 == 0o777)),
    case("change times outside", "touch -d 2001-01-01 $OUT/file", Seen(|s| metadata(&s.outside.join("file")).mtime() < 1_000_000_000)),
    case("change owner outside", "chown 4321 $OUT/file", Seen(|s| metadata(&s.outside.join("file")).uid() == 4321)).by_root(),
    case("change attributes outside", "$ATTACK attribute $OUT/file user.x", Broken),
    case("create beside", "touch ../beside", Seen(|stage| stage.workspace.with_file_name("beside").exists())),
    case("move the workspace away", "mv $WS $WS.moved", Seen(|stage| !stage.workspace.exists())),
    case("move the workspace's parent away", "p=${WS%/*}; mv $p $p.moved", Seen(|stage| !stage.outside.exists())).after(|stage| {
        let parent = stage.outside.parent().expect("a parent").to_owned();
        stage.finally(move || drop(fs::rename(format!("{}.moved", parent.display()), parent)));
    }),
    case("host's shared memory", "echo x > /dev/shm/$ABSTRACT", Seen(|s| fs::remove_file(format!("/dev/shm/{}", s.abstract_name)).is_ok())),
    case("password hashes", "$ATTACK open-read /etc/shadow", Broken).by_root(),
    case("write to /usr", "$ATTACK open-write /usr/lib/os-release", Broken).by_root(),
    case("write to /etc", "$ATTACK open-write /etc/passwd", Broken).by_root(),
    case("plant a program on the path", "f=/usr/local/bin/adj-$OWN; touch $f && rm $f && echo BROKEN", Broken).by_root(),
    case("create in /", "mkdir /adj-$OWN && rmdir /adj-$OWN && echo BROKEN", Broken).by_root(),
    case("create in /etc", "mkdir /etc/adj-$OWN && rmdir /etc/adj-$OWN && echo BROKEN", Broken).by_root(),
    case("create in /run", "mkdir /run/adj-$OWN && rmdir /run/adj-$OWN && echo BROKEN", Broken).by_root(),
    case("kernel settings: core_pattern", "$ATTACK open-write /proc/sys/kernel/core_pattern", Broken).by_root(),
    case("kernel settings: memory", "$ATTACK open-write /proc/sys/vm/overcommit_memory", Broken).by_root(),
    case("kernel settings: own network", "$ATTACK open-write /proc/sys/net/ipv4/ip_forward", Broken).aside(),
    case("kernel settings: oom of a neighbour", "$ATTACK open-write /proc/1/oom_score_adj", Broken).aside(),
    case("interrupt routing", "$ATTACK open-write /proc/irq/default_smp_affinity", Broken)
        .by_root()
        .where_("interrupt routing", || Path::new("/proc/irq/default_smp_affinity").exists()),
    case("magic keys", "$ATTACK open-write /proc/sysrq-trigger", Broken)
        .by_root()
        .where_("magic keys", || Path::new("/proc/sysrq-trigger").exists()),
    case("kernel's memory", "$ATTACK open-read /proc/kcore", Broken)
        .by_root()
        .where_("/proc/kcore", || Path::new("/proc/kcore").exists()),
    case("kernel's keys", "$ATTACK open-read /proc/keys", Broken)
        .where_("visible keys", || fs::read("/proc/keys").is_ok_and(|bytes| !bytes.is_empty())),
    case("users of the kernel's keys", "$ATTACK open-read /proc/key-users", Broken)
        .where_("visible keys", || fs::read("/proc/key-users").is_ok_and(|bytes| !bytes.is_empty())),
    case("addresses in the kernel", "$ATTACK open-read /proc/kallsyms", Broken)
        .where_("/proc/kallsyms", || Path::new("/proc/kallsyms").exists()),
    case("kernel's page flags", "$ATTACK open-read /proc/kpageflags", Broken)
        .by_root()
        .where_("page flags", || Path::new("/proc/kpageflags").exists()),
    case("kernel's objects", "test -d /sys/kernel && echo BROKEN", Broken),
    case("the first process's memory", "$ATTACK open-write /proc/1/mem", Broken).by_root().where_("a first process that root may look into", may_look_into_first),
    case("kernel's log as a device", "$ATTACK open-only /dev/kmsg", Broken)
        .by_root()
        .where_("/dev/kmsg", || Path::new("/dev/kmsg").exists()),
    case("physical memory", "$ATTACK open-only /dev/mem", Broken)
        .by_root()
        .where_("/dev/mem", || Path::new("/dev/mem").exists()),
    case("the host's disks", "for d in /sys/class/block/*; do $ATTACK open-read /dev/${d##*/}; done; for d in vda sda nvme0n1 loop0; do $ATTACK open-read /dev/$d; done", Broken)
        .by_root()
        .where_("a disk that root may read", may_read_disk),
    case("virtual machines", "test -e /dev/kvm && echo BROKEN", Broken)
        .where_("/dev/kvm", || Path::new("/dev/kvm").exists()),
    case("file systems in user space", "test -e /dev/fuse && echo BROKEN", Broken)
        .where_("/dev/fuse", || Path::new("/dev/fuse").exists()),
    case("a device of one's own", "$ATTACK device $WS/null", Seen(|stage| {
        fs::symlink_metadata(stage.workspace.join("null")).is_ok_and(|found| found.file_type().is_char_device())
    })).by_root(),
    case("a disk of one's own", "$ATTACK disk $WS/disk", Broken)
        .by_root()
        .where_("a disk below /usr that root may read", may_read_disk_of_usr),
    case("set-user-id by chmod", "cp /bin/true s; chmod 4755 s", Seen(has_set_id_file)),
    case("set-group-id by chmod", "cp /bin/true s; chmod 2755 s", Seen(has_set_id_file)),
    case("set-user-id by fchmod", "$ATTACK suid-fchmod $WS/s", Seen(has_set_id_file)),
    case("set-user-id by open", "$ATTACK suid-open $WS/s", Seen(has_set_id_file)),
    case("set-user-id by openat2", "$ATTACK suid-openat2 $WS/s", Seen(has_set_id_file)),
    case("set-user-id by a nameless file", "$ATTACK suid-temporary $WS/s", Seen(has_set_id_file)),
    case("set-user-id by mknod", "$ATTACK suid-mknod $WS/s", Seen(has_set_id_file)),
    case("set-user-id by fchmodat2", "$ATTACK suid-chmod2 $WS/s", Seen(has_set_id_file))
        .where_("Linux 6.6", || super::kernel::is_at_least(6, 6)),
    case("set-user-id by copying", "cp -p suid s", Seen(has_set_id_copy)).after(|stage| {
        let path = stage.workspace.join("suid");
        fs::copy("/bin/true", &path).expect("a copy");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o4755)).expect("a mode");
    }),
    case("file capabilities", "cp /bin/true s; $ATTACK attribute $WS/s security.capability", Broken).by_root(),
    case("trusted attributes", "$ATTACK attribute $WS/file.txt trusted.overlay.opaque", Broken).by_root(),
];

/// A root with fewer rights than the first process, as in many containers, may not.
fn may_look_into_first() -> bool {
    fs::read_link("/proc/1/root").is_ok()
}

/// Where a control group lends no devices, even root may not.
fn may_read_disk() -> bool {
    let disks = fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
    disks.into_iter().any(|disk| has_bytes(&Path::new("/dev").join(disk.file_name())))
}

fn may_read_disk_of_usr() -> bool {
    let device = metadata(Path::new("/usr")).dev();
    let about = format!("/sys/dev/block/{}:{}/uevent", rustix::fs::major(device), rustix::fs::minor(device));
    let about = fs::read_to_string(about).unwrap_or_default();
    let name = about.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.is_some_and(|name| has_bytes(&Path::new("/dev").join(name)))
}

fn has_bytes(path: &Path) -> bool {
    fs::File::open(path).is_ok_and(|mut file| file.read(&mut [0; 8]).is_ok_and(|count| count > 0))
}

fn metadata(path: &Path) -> fs::Metadata {
    fs::symlink_metadata(path).expect("metadata")
}

fn is_changed(stage: &mut Stage) -> bool {
    fs::read_to_string(stage.outside.join("file")).ok().as_deref() != Some("as it was")
}

fn has_set_id_file(stage: &mut Stage) -> bool {
    let mut entries = fs::read_dir(&stage.workspace).expect("the workspace").flatten();
    entries.any(|entry| entry.metadata().is_ok_and(|found| found.permissions().mode() & 0o6000 != 0 && found.is_file()))
}

fn has_set_id_copy(stage: &mut Stage) -> bool {
    fs::metadata(stage.workspace.join("s")).is_ok_and(|found| found.permissions().mode() & 0o4000 != 0)
}

#[tokio::test]
async fn nothing_outside_is_read_or_changed() {
    super::nobody_gets_out("files", "escapes::files::nothing_outside_is_read_or_changed", CASES).await;
}
