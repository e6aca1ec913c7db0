"""What every bench stands on: pinned child processes, a server on a core of its own, tables in Markdown."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from replay.verbs.ports import free_port

GENERATOR_CORE, SERVER_CORE = 0, 1

BODY = b'{"id":41,"name":"A plain white mug","price":"12.50","stock":[3,0,7],"tags":["kitchen","mug"]}'

LOGIN = b'{"token":"live0token9Zk3fB9xW2m","user":{"id":977,"name":"ann"}}'
"""What /login answers, with a cookie."""

_NGINX = """
daemon off; worker_processes 1; pid {d}/nginx.pid; error_log {d}/error.log crit;
events {{ worker_connections 12000; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; default_type application/json;
  client_body_temp_path {d}/b; proxy_temp_path {d}/p; fastcgi_temp_path {d}/f;
  uwsgi_temp_path {d}/u; scgi_temp_path {d}/s;
  log_format arrivals '$msec $uri';
  server {{
    listen 127.0.0.1:{plain} backlog=4096; listen 127.0.0.1:{tls} ssl;
    ssl_certificate {d}/cert.pem; ssl_certificate_key {d}/key.pem;
    location = /login {{ add_header Set-Cookie "sid=live0sid7x1k9q2; Path=/"; return 200 '{login}'; }}
    location / {{ {log} return 200 '{body}'; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """An nginx that answers everything with the same small JSON."""

    url: str
    tls_url: str
    directory: Path

    def arrivals(self) -> Iterator[tuple[float, str]]:
        """Seconds of the wall clock (to the millisecond) and path of each request, where they were logged."""
        with (self.directory / "arrivals.log").open() as lines:
            for line in lines:
                at, _, path = line.rstrip().partition(" ")
                yield float(at), path


@contextmanager
def nginx(directory: Path, *, log: bool = False, core: int | None = SERVER_CORE) -> Iterator[Server]:
    """nginx with one worker on the server's core; `log` keeps arrival times in memory-backed storage."""
    import trustme

    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    plain, tls = free_port(), free_port()
    logging = f"access_log {directory}/arrivals.log arrivals buffer=1m flush=1s;" if log else ""
    conf = directory / "nginx.conf"
    conf.write_text(
        _NGINX.format(
            d=directory, plain=plain, tls=tls, log=logging, body=BODY.decode(), login=LOGIN.decode()
        )
    )
    with child(["nginx", "-p", str(directory), "-c", str(conf)], core):
        wait_for(plain)
        yield Server(f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{tls}", directory)


def pinned(core: int | None, arguments: Sequence[str]) -> list[str]:
    """The command on one core, where the system can pin; on any, where it is `None`."""
    if core is None or not shutil.which("taskset"):
        return list(arguments)
    return ["taskset", "-c", str(core % (os.cpu_count() or 1)), *arguments]


@contextmanager
def child(arguments: Sequence[str], core: int | None, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A child process with its group, ended by SIGTERM on leaving (then SIGKILL)."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
    process = subprocess.Popen(pinned(core, arguments), start_new_session=True, **quiet)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    continue
        process.wait()


def run(arguments: Sequence[str], core: int | None = GENERATOR_CORE, timeout: float = 180) -> str:
    """Run to the end, return what it printed; fails loudly with its errors."""
    done = subprocess.run(pinned(core, arguments), capture_output=True, text=True, timeout=timeout)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def move_children(pid: int, word: str, core: int) -> None:
    """Pin those descendants of a process whose command line holds `word` to another core; there has to be one."""
    moved = 0
    for child in psutil.Process(pid).children(recursive=True):
        if word in " ".join(child.cmdline()):
            moved += 1
            for thread in child.threads():
                os.sched_setaffinity(thread.id, {core})
    assert moved, f"no process of {word} to move"


def peak_mb(arguments: Sequence[str], core: int | None = GENERATOR_CORE) -> float:
    """Run to the end; the largest resident set of any process of it, in MB (Linux counts it in KB)."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    return int(run([sys.executable, "-c", code, *arguments], core, timeout=600)) / 1024


def wait_for(port: int, seconds: float = 15) -> None:
    """Until something listens on the port of loopback."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port} after {seconds:g} s")


def many_files() -> None:
    """As many open files as this machine lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def described() -> str:
    """The machine in a line: what a figure is worth depends on it."""
    model = "unknown processor"
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores of {model}, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}; generator on core {GENERATOR_CORE}, server on core {SERVER_CORE}"
    )
