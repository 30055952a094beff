"""Reads that go on while the process does other things: Linux's own asynchronous ones.

They are direct: the disk writes to the caller's memory, past the system's cache. That takes
a core a tenth of the time of a read through it, and no thread has to wait, which would hold up
those of a training. Where a system or a file refuses them, `Reads` says that nothing was read.
"""

import contextlib
import ctypes
import errno
import functools
import mmap
import os
import platform
import sys

import numpy as np

# What direct reads have to be multiples of, on all disks but a few: places in memory and in the
# file, and lengths.
SECTOR = 512

# The numbers of system calls that the C library doesn't name.
_NAMES = "io_setup", "io_destroy", "io_submit", "io_getevents"
_NUMBERS = {"x86_64": (206, 207, 209, 208), "aarch64": (0, 1, 2, 4)}
_READ = 7  # into several places, IOCB_CMD_PREADV

# The most that are under way at once.
DEPTH = 128

# Less is as quick to read through the cache. So much, `aligned_zeros` has in pages of its own. Who
# writes to a page meanwhile, and has forked, gets another page than the disk writes to.
_LEAST_BYTES = 1 << 18


class _Request(ctypes.Structure):
    """Linux's iocb."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("operation", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("file", ctypes.c_uint32),
        ("vectors", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("more_flags", ctypes.c_uint32),
        ("event_file", ctypes.c_uint32),
    )


class _Vector(ctypes.Structure):
    """The C library's iovec."""

    _fields_ = (("place", ctypes.c_void_p), ("length", ctypes.c_size_t))


# Made once, since to make a type takes longer than all the rest of a read's beginning.
_Vectors = _Vector * 3


class _Event(ctypes.Structure):
    """Linux's io_event."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("request", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("more", ctypes.c_int64),
    )


@functools.cache
def _system():
    """The C library's `syscall`, None where its numbers are not known."""
    if sys.platform != "linux" or platform.machine() not in _NUMBERS or sys.maxsize < 2**32:
        return None
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return call


def _number(name):
    """A system call's number on this machine."""
    return ctypes.c_long(_NUMBERS[platform.machine()][_NAMES.index(name)])


# Contexts that nobody uses now, with the process that they are of. To give one back to the system
# takes tens of milliseconds.
_spare = []


def _context():
    """A context, a spare one if there is one; None where the system gives none."""
    call = _system()
    if call is None:
        return None
    while _spare:
        with contextlib.suppress(IndexError):  # another thread was quicker
            process, spare = _spare.pop()
            if process == os.getpid():
                return spare
    context = ctypes.c_ulong(0)
    failed = call(_number("io_setup"), DEPTH, ctypes.byref(context))
    return None if failed else context


def fits(begin, out):
    """Whether a file's bytes from `begin` on can be read directly into a contiguous array.

    They can where both lie in the same way to sectors, and are more than a few.
    """
    return (out.ctypes.data - begin) % SECTOR == 0 and out.nbytes >= _LEAST_BYTES


def _open(path):
    """A file for direct reads, None where it refuses them."""
    with contextlib.suppress(OSError):
        return os.open(path, os.O_RDONLY | os.O_DIRECT)
    return None


class Reads:
    """Reads that are begun together, and waited for together.

    What they write to must stay until `finish` or `close`.
    """

    def __init__(self):
        self._context = _context()
        self._process = os.getpid()
        self._reads = []
        self._sure = True  # that what is under way is what `begun` says
        self._edges = np.frombuffer(mmap.mmap(-1, 2 * SECTOR * DEPTH), np.uint8)

    def _ours(self):
        """Whether there is a context, and this is not a process that was forked since."""
        return self._context is not None and self._process == os.getpid()

    def _call(self, call, *arguments):
        while True:
            result = _system()(_number(call), self._context, *arguments)
            if result >= 0:
                return result
            if ctypes.get_errno() != errno.EINTR:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def begin(self, reads):
        """Begin to read, for each (path, begin, out), a file's bytes into an array that `fits`.

        They are no more than DEPTH, and those before have been finished.
        """
        edges = self._edges.reshape(DEPTH, -1)
        self._reads = [
            _Read(begin, out, edge) for (_, begin, out), edge in zip(reads, edges, strict=False)
        ]
        if not self._ours():
            return
        with contextlib.ExitStack() as opened:
            files, asked = {}, []
            for number, (read, (path, _, _)) in enumerate(zip(self._reads, reads, strict=True)):
                if path not in files:
                    files[path] = _open(path)
                    if files[path] is not None:
                        opened.callback(os.close, files[path])
                if files[path] is not None:
                    asked.append((read, ctypes.addressof(read.request(number, files[path]))))
            self._submit(asked)

    def _submit(self, asked):
        """Ask the system for (read, request)s, all at once, but for those that it refuses."""
        requests = (ctypes.c_void_p * len(asked))(*(request for _, request in asked))
        first = 0
        while first < len(asked):
            rest = ctypes.byref(requests, first * ctypes.sizeof(ctypes.c_void_p))
            self._sure = False  # an interrupt may come before what was begun is noted
            try:
                count = self._call("io_submit", ctypes.c_long(len(asked) - first), rest)
            except OSError:  # the first of them, since there is one too many, or it is refused
                count = 0
            for read, _ in asked[first : first + count]:
                read.begun = True
            self._sure = True
            first += max(count, 1)

    def finish(self):
        """Wait for them; returns, for each, whether the array is filled."""
        missing = sum(read.begun for read in self._reads) if self._ours() else 0
        filled = [False] * len(self._reads)
        events = (_Event * max(missing, 1))()
        while missing:
            many = ctypes.c_long(missing)
            self._sure = False
            count = self._call("io_getevents", many, many, events, None)
            for event in events[:count]:
                read = self._reads[event.data]
                read.begun, filled[event.data] = False, read.end(event.result)
            self._sure = True
            missing -= count
        self._reads = []
        return filled

    def close(self):
        """Wait for what is under way; the context is for others then."""
        if self._ours() and self._sure:
            self.finish()
            _spare.append((self._process, self._context))
        elif self._ours():  # which waits for whatever there is
            self._call("io_destroy")
        self._context, self._reads = None, []


class _Read:
    """Sectors of a file: those that an array takes whole, and the two that it takes parts of."""

    def __init__(self, begin, out, edges):
        self._bytes = out.reshape(-1).view(np.uint8)
        self._first = begin // SECTOR * SECTOR
        self._head = -begin % SECTOR  # bytes before the first whole sector
        self._tail = (begin + out.nbytes) % SECTOR  # and after the last
        self._most = begin + out.nbytes - self._first
        self._edges = edges
        self.begun = False

    def request(self, number, file):
        """What the system is asked for; it is kept here."""
        edges, whole = self._edges.ctypes.data, self._bytes.ctypes.data + self._head
        length = len(self._bytes) - self._head - self._tail
        parts = [(whole, length)]
        if self._head:
            parts.insert(0, (edges, SECTOR))
        if self._tail:
            parts.append((edges + SECTOR, SECTOR))
        self._vectors = _Vectors(*parts)
        self._request = _Request(
            data=number,
            operation=_READ,
            file=file,
            vectors=ctypes.addressof(self._vectors),
            count=len(parts),
            offset=self._first,
        )
        return self._request

    def end(self, result):
        """Take what is wanted of the edges; whether all was read."""
        if result < self._most:
            return False
        if self._head:
            self._bytes[: self._head] = self._edges[SECTOR - self._head : SECTOR]
        if self._tail:
            self._bytes[-self._tail :] = self._edges[SECTOR : SECTOR + self._tail]
        return True
