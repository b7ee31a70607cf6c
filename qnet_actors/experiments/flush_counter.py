"""Counts the calls that flush a file to the disk, whoever makes them: the kernel reports each.

A library such as DuckDB flushes from native code, where nothing of Python sees it.  So a filter of
seccomp(2) stops every fsync and fdatasync until a thread of this process has counted it, and the
kernel then carries it out as it stands.  A filter cannot be taken off again: whoever counts is a
process of its own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections import Counter
from threading import Thread
from typing import Any, Final, NamedTuple


class _Numbers(NamedTuple):
    seccomp: int
    fsync: int
    fdatasync: int


# From the kernel's system call tables.
_NUMBERS: Final = {"x86_64": _Numbers(317, 74, 75), "aarch64": _Numbers(277, 82, 83)}
# From linux/prctl.h, linux/seccomp.h and linux/filter.h.
_NO_NEW_PRIVILEGES: Final = 38
_MODE_FILTER: Final = 1
_NEW_LISTENER: Final = 8
_ALLOW: Final = 0x7FFF0000
_NOTIFY: Final = 0x7FC00000
_CONTINUE: Final = 1
_LOAD_WORD: Final = 0x20
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_RECEIVE: Final = 0xC0502100
_SEND: Final = 0xC0182101


class _Notification(ctypes.Structure):
    """`struct seccomp_notif`."""

    _fields_ = (
        ("id", ctypes.c_uint64),
        ("thread", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("number", ctypes.c_int32),
        ("architecture", ctypes.c_uint32),
        ("instruction", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


class _Response(ctypes.Structure):
    """`struct seccomp_notif_resp`."""

    _fields_ = (
        ("id", ctypes.c_uint64),
        ("value", ctypes.c_int64),
        ("error", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class FlushCounter:
    """Counts the flushes of the thread that makes this, and of the threads that it starts later.

    Raises `OSError` where the kernel or a container does not allow it.
    """

    def __init__(self) -> None:
        self.by_thread: Counter[int] = Counter()
        """Flushes by native thread id."""
        if platform.machine() not in _NUMBERS or not hasattr(os, "pidfd_open"):
            raise OSError("flushes are counted on Linux with x86-64 or ARM64 only")
        numbers = _NUMBERS[platform.machine()]
        self._libc: Any = ctypes.CDLL(None, use_errno=True)
        # The thread that counts is started first, so that the filter is not its own.
        reading, writing = os.pipe()
        Thread(target=self._count, args=(reading,), daemon=True).start()
        try:
            listener = self._install(numbers)
        except OSError:
            os.close(writing)
            raise
        os.write(writing, struct.pack("i", listener))
        os.close(writing)

    def _install(self, numbers: _Numbers) -> int:
        """Sets the filter; returns the file descriptor that tells of the calls."""
        code = b"".join(
            struct.pack("HBBI", *instruction)
            for instruction in (
                (_LOAD_WORD, 0, 0, 0),
                (_JUMP_IF_EQUAL, 2, 0, numbers.fsync),
                (_JUMP_IF_EQUAL, 1, 0, numbers.fdatasync),
                (_RETURN, 0, 0, _ALLOW),
                (_RETURN, 0, 0, _NOTIFY),
            )
        )
        buffer = ctypes.create_string_buffer(code, len(code))
        program = _Program(len(code) // 8, ctypes.addressof(buffer))
        if self._libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            raise _error()
        listener: int = self._libc.syscall(
            numbers.seccomp, _MODE_FILTER, _NEW_LISTENER, ctypes.byref(program)
        )
        if listener < 0:
            raise _error()
        return listener

    def _count(self, reading: int) -> None:
        told = os.read(reading, 4)
        os.close(reading)
        if not told:
            return
        (listener,) = struct.unpack("i", told)
        notification = _Notification()
        while True:
            ctypes.memset(ctypes.byref(notification), 0, ctypes.sizeof(notification))
            if self._ioctl(listener, _RECEIVE, notification):
                # A thread may be interrupted or end before its call is told of.
                if ctypes.get_errno() in (errno.ENOENT, errno.EINTR):
                    continue
                raise _error()
            self.by_thread[notification.thread] += 1
            self._ioctl(listener, _SEND, _Response(notification.id, 0, 0, _CONTINUE))

    def _ioctl(self, listener: int, request: int, argument: ctypes.Structure) -> int:
        result: int = self._libc.ioctl(listener, ctypes.c_ulong(request), ctypes.byref(argument))
        return result


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
