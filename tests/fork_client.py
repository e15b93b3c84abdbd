"""The tests' side of fork_server.py: a Program in a test, and a command in the place of `python` for scripts.

`python -IS fork_client.py SOCKET COMMAND -m MODULE ...`, where COMMAND is what the program takes for its interpreter.
"""

import array
import json
import os
import signal
import socket
import sys


class Program:
    """A process that fork_server.py started; behaves as a subprocess.Popen, as far as the tests need one."""

    def __init__(self, address, python, words, environment=None, folder=None, files=(0, 1, 2)):
        self.returncode = None
        request = {
            "words": [str(word) for word in words],
            "environment": dict(os.environ if environment is None else environment),
            "folder": str(folder or os.getcwd()),
            "python": str(python),
        }
        text = json.dumps(request).encode()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(address)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))
        self._server.sendmsg([len(text).to_bytes(8, "big")], [rights])
        self._server.sendall(text)
        self._reader = self._server.makefile("rb")
        self.pid = int.from_bytes(self._reader.read(8), "big")

    def send_signal(self, number):
        if self.returncode is None:
            os.kill(self.pid, number)

    def poll(self):
        if self.returncode is None:
            self._server.setblocking(False)
            try:
                if not self._server.recv(1, socket.MSG_PEEK):
                    raise RuntimeError("the fork server has gone away")
            except BlockingIOError:
                return None
            finally:
                self._server.setblocking(True)
            self.wait()
        return self.returncode

    def wait(self):
        if self.returncode is None:
            status = self._reader.read(8)
            if not status:
                raise RuntimeError("the fork server has gone away")
            self.returncode = int.from_bytes(status, "big", signed=True)
            self._reader.close()
            self._server.close()
        return self.returncode


def main():
    address, python, *words = sys.argv[1:]
    program = Program(address, python, words)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, frame: program.send_signal(received))
    code = program.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
