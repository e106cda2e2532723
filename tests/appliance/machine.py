"""A real machine in QEMU: Debian 12 with Skep laid out as its package will lay it out.

`Tree` makes the root file system once (kept under .local/appliance) and puts the build under test into it each time;
`Machine` boots a fresh disk made from it and runs commands in it as root. No /dev/kvm is needed or used: kernels under test must
be stock, and nested virtualisation of that kind is not to be had everywhere.
"""

import base64
import hashlib
import os
import pathlib
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".local" / "appliance"
TOOLS = {"mmdebstrap": "mmdebstrap", "qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs", "strip": "binutils"}
PACKAGES = ["systemd", "systemd-sysv", "dbus", "udev", "linux-image-cloud-amd64", "iproute2", "ca-certificates", "procps"]
SUITE = "bookworm"
# What the guest sees of the host: QEMU's user network shows the host's loopback under this address.
HOST = "10.0.2.2"


class MachineError(Exception):
    """The machine itself is broken; no check can be judged."""


def as_root(command, **options):
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    return subprocess.run([*sudo, *map(str, command)], check=True, **options)


def retry(command, **options):
    """Mirrors are sometimes in the middle of a sync: try again."""
    for attempt in range(1, 6):
        try:
            return as_root(command, **options)
        except subprocess.CalledProcessError:
            if attempt == 5:
                raise
            time.sleep(5 * attempt)


def install_tools():
    paths = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool, path=paths)]
    if missing:
        retry(["apt-get", "update", "-qq"])
        retry(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
              stdout=subprocess.DEVNULL)


class Tree:
    """The root file system as a directory."""

    def __init__(self):
        key = hashlib.sha256(" ".join([SUITE, *PACKAGES]).encode()).hexdigest()[:12]
        self.path = CACHE / f"root-{key}"

    def make(self):
        """The distribution, once."""
        if (self.path / "made").exists():
            return
        CACHE.mkdir(parents=True, exist_ok=True)
        as_root(["rm", "-rf", self.path])
        with tempfile.TemporaryDirectory(prefix="appliance-", dir=CACHE) as scratch:
            tar = pathlib.Path(scratch) / "root.tar"
            retry(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, tar])
            as_root(["mkdir", "-p", self.path])
            as_root(["tar", "-C", self.path, "--exclude=./dev/*", "-xf", tar])
        as_root(["touch", self.path / "made"])

    def write(self, path, text, mode="0644"):
        as_root(["install", "-D", "-m", mode, "/dev/stdin", self.path / path.lstrip("/")], input=text.encode())

    def copy(self, source, path, mode="0644"):
        as_root(["install", "-D", "-m", mode, source, self.path / path.lstrip("/")])

    def inside(self, *command):
        as_root(["chroot", self.path, *command], stdin=subprocess.DEVNULL)

    def install(self, binaries, claude, settings, secrets, ports):
        """What the package brings, what its owner sets up, and the test's own hands and doors."""
        self.copy(binaries / "skep", "/usr/bin/skep", "0755")
        self.copy(binaries / "skep-sandbox", "/usr/lib/skep/skep-sandbox", "0755")
        for name in ["/usr/bin/skep", "/usr/lib/skep/skep-sandbox"]:
            as_root(["strip", self.path / name.lstrip("/")])
        installed = self.path / "usr/lib/skep/claude"
        if not installed.exists() or installed.stat().st_size != claude.stat().st_size:
            self.copy(claude, "/usr/lib/skep/claude", "0755")
        self.copy(ROOT / "systemd/skep.service", "/lib/systemd/system/skep.service")
        self.copy(ROOT / "systemd/skep.sysusers", "/usr/lib/sysusers.d/skep.conf")
        self.copy(ROOT / "systemd/skep.tmpfiles", "/usr/lib/tmpfiles.d/skep.conf")
        self.write("/etc/skep/skep.toml", settings)
        for name, secret in secrets.items():
            self.write(f"/etc/credstore/skep.{name}", secret, "0600")
        self.write("/etc/hostname", "appliance\n")
        self.write("/etc/fstab", "/dev/vda / ext4 defaults 0 1\n")
        # No route and no name server: the host's loopback is all there is.
        self.write("/etc/systemd/network/test.network", "[Match]\nDriver=virtio_net\n[Network]\nAddress=10.0.2.15/24\n")
        # The test looks everything up in the journal: nothing may be held back.
        self.write("/etc/systemd/journald.conf.d/test.conf",
                   "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n")
        self.copy(HERE / "guest/shell.sh", "/usr/local/sbin/test-shell", "0755")
        self.write("/etc/systemd/system/test-shell.service",
                   "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/usr/local/sbin/test-shell\nRestart=always\nRestartSec=1\n"
                   "OOMScoreAdjust=-900\n[Install]\nWantedBy=multi-user.target\n")
        doors = []
        for name, (here, there) in ports.items():
            self.write(f"/etc/systemd/system/door-{name}.socket",
                       f"[Socket]\nListenStream=127.0.0.1:{here}\n[Install]\nWantedBy=sockets.target\n")
            self.write(f"/etc/systemd/system/door-{name}.service",
                       f"[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd {HOST}:{there}\n")
            doors.append(f"door-{name}.socket")
        # As the package's scripts do; tmpfiles.d is applied by the boot itself.
        self.inside("systemd-sysusers")
        self.inside("systemctl", "--quiet", "enable", "skep.service", "systemd-networkd.service", "test-shell.service", *doors)

    def disk(self, file):
        file.unlink(missing_ok=True)
        with open(file, "wb") as disk:
            disk.truncate(3 << 30)
        as_root(["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", self.path, file],
                env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"})

    def boot_files(self):
        boot = self.path / "boot"
        return max(boot.glob("vmlinuz-*")), max(boot.glob("initrd.img-*"))


class Machine:
    """A booted machine."""

    def __init__(self, tree, work, parameters=""):
        self.work = work
        self.console = work / "console.log"
        kernel, initrd = tree.boot_files()
        self.socket_path, self.monitor_path = work / "shell.sock", work / "monitor.sock"
        self.process = subprocess.Popen([
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "1024", "-smp", "2",
            "-kernel", kernel, "-initrd", initrd,
            "-append", f"root=/dev/vda rw console=ttyS0 panic=5 systemd.show_status=no {parameters}",
            "-drive", f"file={work / 'disk'},format=raw,if=virtio,cache=unsafe",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=shell,path={self.socket_path},server=on,wait=off",
            "-device", "virtserialport,chardev=shell,name=skep.test",
            "-monitor", f"unix:{self.monitor_path},server=on,wait=off",
            "-display", "none", "-serial", f"file:{self.console}",
        ], stdin=subprocess.DEVNULL, stderr=open(work / "qemu.log", "w"))
        self.number = 0
        self.boot = None
        self.lines = queue.Queue()
        end = time.monotonic() + 20
        while not self.socket_path.exists():
            if time.monotonic() > end or self.process.poll() is not None:
                raise MachineError("QEMU does not start")
            time.sleep(0.05)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(self.socket_path))
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_boot()

    def _read(self):
        rest = b""
        while data := self.socket.recv(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.lines.put(line.decode(errors="replace"))

    def wait_boot(self, seconds=180):
        """Until the shell answers in a boot that is not the one before; returns the seconds it took."""
        began = time.monotonic()
        while (left := seconds - (time.monotonic() - began)) > 0:
            try:
                word, boot, _ = self.lines.get(timeout=left).split(" ", 2)
            except queue.Empty:
                break
            except ValueError:
                continue
            if word == "hello" and boot != self.boot:
                self.boot = boot
                return time.monotonic() - began
        raise MachineError(f"the machine did not boot in {seconds} s; see {self.console}")

    def run(self, command, seconds=60):
        """Exit code and output of a command of root; 124 when it took too long."""
        self.number += 1
        encoded = base64.b64encode(command.encode()).decode()
        self.socket.sendall(f"{self.number} {seconds} {encoded}\n".encode())
        end = time.monotonic() + seconds + 30
        while (left := end - time.monotonic()) > 0:
            try:
                parts = self.lines.get(timeout=left).split(" ")
            except queue.Empty:
                break
            if len(parts) == 3 and parts[0] == str(self.number):
                text = "" if parts[2] == "-" else base64.b64decode(parts[2]).decode(errors="replace")
                return int(parts[1]), text.rstrip("\n")
        raise MachineError(f"the machine does not answer: {command}")

    def read(self, command, seconds=60):
        """The output of a command that must succeed."""
        code, text = self.run(command, seconds)
        if code != 0:
            raise AssertionError(f"`{command}` gave {code}: {text[-600:]}")
        return text

    def cut_power(self):
        """What was not written to the disk is lost."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.monitor_path))
            monitor.sendall(b"system_reset\n")
            monitor.settimeout(5)
            # QEMU reads a command only while somebody is there to hear the answer.
            try:
                while b"system_reset" not in monitor.recv(4096):
                    pass
                time.sleep(0.2)
            except TimeoutError:
                pass

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
