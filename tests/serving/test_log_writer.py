"""Lines of the log: whole, in order, and none that is urgent waits."""

from __future__ import annotations

import io
import threading

from serving.log_writer import LineWriter


class File(io.BytesIO):
    """Says when it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = threading.Event()
        self.writes = 0

    def write(self, data: object) -> int:
        self.writes += 1
        return super().write(data)  # type: ignore[arg-type]

    def flush(self) -> None:
        self.flushed.set()


def test_lines_are_written_together_before_long():
    file = File()
    writer = LineWriter(file)
    for number in range(100):
        writer.info(b"%d" % number)
    assert file.flushed.wait(10)
    writer.flush()
    assert file.getvalue() == b"".join(b"%d\n" % number for number in range(100))
    assert file.writes <= 2
    file.flushed.clear()
    writer.info(b"later")
    assert file.flushed.wait(10)
    assert file.getvalue().endswith(b"\nlater\n")


def test_a_warning_waits_for_nothing_and_overtakes_nothing():
    file = File()
    writer = LineWriter(file)
    writer.info(b"before")
    writer.warning(b"now")
    assert file.getvalue() == b"before\nnow\n"
    writer.error(b"worse")
    assert file.getvalue().endswith(b"\nworse\n")


def test_lines_of_many_threads_stay_whole():
    file = File()
    writer = LineWriter(file)

    def say(name: bytes) -> None:
        for number in range(200):
            (writer.error if number % 10 == 0 else writer.info)(b"%s %d" % (name, number))

    threads = [threading.Thread(target=say, args=(b"%d" % n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.flush()
    lines = file.getvalue().splitlines()
    assert sorted(lines) == sorted(b"%d %d" % (n, i) for n in range(4) for i in range(200))
