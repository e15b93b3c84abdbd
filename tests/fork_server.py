"""Starts Python programs by fork: `python fork_server.py SOCKET READY WATCHED`.

A program of this project imports torch and transformers for several seconds before it does its work, and the tests
start dozens. This process imports the libraries once, and nothing of the project. A program that it starts is a process
of its own with its own arguments, environment, folder, input and output; it imports the project and runs `-m MODULE`,
`-c CODE` or `FILE` as the interpreter would. It is killed when its client goes away, and this process ends when WATCHED
does.

What a library reads from the environment while it is imported was read from this process's environment: programs that
are tested for such settings, and one start of every program, are left to the interpreter itself.
"""

import array
import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path

import peft  # noqa: F401
import PIL.Image
import torch
import transformers.trainer  # noqa: F401
from transformers import CLIPImageProcessor, CLIPVisionModel, LlamaForCausalLM, LlamaTokenizer  # noqa: F401
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

INTERVAL = 0.02
"""Seconds between two looks at the programs that run."""


def exit_status(stop: SystemExit) -> int:
    """As the interpreter ends at a SystemExit."""
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    print(stop.code, file=sys.stderr)
    return 1


def execute(words: list[str]) -> int:
    """Runs the arguments after `python` of a command line; returns the exit status."""
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            sys.path[0] = os.getcwd()
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            sys.path[0] = ""
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = words
            sys.path[0] = str(Path(words[0]).resolve().parent)
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        return exit_status(stop)
    except KeyboardInterrupt:
        traceback.print_exc()
        return -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def become(request: dict, files: list[int]) -> None:
    """Turns this forked process into the program that was asked for."""
    # Its own group: a test can kill it with all that it started.
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[1:1] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.executable = request["python"]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    code = execute(request["words"])
    with contextlib.suppress(Exception):
        threading._shutdown()
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)


def receive(client: socket.socket) -> tuple[dict, list[int]]:
    """A request: its length in 8 bytes along with three open files, then JSON."""
    size = array.array("i").itemsize
    head, extra, _, _ = client.recvmsg(8, socket.CMSG_SPACE(3 * size))
    files = array.array("i")
    files.frombytes(extra[0][2])
    with client.makefile("rb") as reader:
        return json.loads(reader.read(int.from_bytes(head, "big"))), list(files)


def start(server: socket.socket, running: dict[int, socket.socket]) -> None:
    """Forks the program that the next client asks for, and tells the client its process id."""
    client, _ = server.accept()
    try:
        request, files = receive(client)
    except (OSError, IndexError, ValueError):
        # It was killed before it had said everything.
        client.close()
        return
    pid = os.fork()
    if not pid:
        try:
            server.close()
            client.close()
            for other in running.values():
                other.close()
            become(request, files)
        finally:
            os._exit(70)
    for file in files:
        os.close(file)
    running[pid] = client
    with contextlib.suppress(OSError):
        client.sendall(pid.to_bytes(8, "big"))


def finish(running: dict[int, socket.socket]) -> None:
    """Tells clients the statuses of programs that have ended."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        client = running.pop(pid)
        with contextlib.suppress(OSError):
            client.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))
        client.close()


def serve(server: socket.socket, watched: int) -> None:
    """Starts programs until the watched process is gone."""
    running: dict[int, socket.socket] = {}
    while True:
        ready = select.select([server, *running.values()], [], [], INTERVAL if running else 0.5)[0]
        for pid, client in list(running.items()):
            if client in ready:
                # A client says nothing more: it has gone away. So do the clients that its program started.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
        if server in ready:
            start(server, running)
        finish(running)
        try:
            os.kill(watched, 0)
        except ProcessLookupError:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            return


def main() -> None:
    address, ready, watched = sys.argv[1:]
    # What transformers builds at the first use.
    get_checkpoint_conversion_mapping("llama")
    PIL.Image.init()
    assert not [name for name in sys.modules if name.split(".")[0] in ("llava", "bunny", "visual_region", "tests")]
    del sys.path[0]
    sys.path.insert(0, "")
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        Path(ready).touch()
        serve(server, int(watched))


if __name__ == "__main__":
    main()
