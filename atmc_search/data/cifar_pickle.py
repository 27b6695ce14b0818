"""CIFAR's python version read without unpickling: a machine of our own for the few opcodes that these files use.

Python's unpickler is not used, not even with a short list of allowed names. The names that numpy's arrays need are no
safe ones: `numpy.dtype` rebuilt with flags of the file's choice can make bytes be taken for pointers, and a deeply
nested key overflows the C stack. Here nothing is looked up, called or constructed: a name is a word that is compared,
an array is its recorded shape and bytes, and whatever is not needed is refused. `pickletools.genops` only parses.
"""

from __future__ import annotations

import math
import pickletools  # nosec B403 # parses, and runs nothing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atmc_search.errors import DataError, shown

_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_NDARRAY, _DTYPE, _ENCODE = "numpy ndarray", "numpy dtype", "_codecs encode"
_NAMES = (*_RECONSTRUCT, _NDARRAY, _DTYPE, _ENCODE)

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    *("BININT", "BININT1", "BININT2"),
    *("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"),
}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class _Refused(Exception):
    """What the file holds and should not."""


@dataclass(frozen=True)
class _Name:
    """A global that the file names."""

    name: str


@dataclass(eq=False, repr=False)
class _Dtype:
    """An element type by its word; uint8 is 'u1'."""

    word: object


@dataclass(eq=False, repr=False)
class _Array:
    """An array by the state that it was saved with: (version, shape, dtype, Fortran order?, bytes)."""

    state: object = None


def read_batch(path: Path) -> dict[str, Any]:
    """The dict in `path`: strings, whole numbers, None, lists, tuples and dicts of these, and uint8 arrays.

    Strings of Python 2 are read as Latin-1.

    Raises:
        DataError: unreadable, damaged, no dict, or with anything else inside, which is not looked at further.
    """
    try:
        found = _is(_run(path.read_bytes()), dict)
        return {key: _uint8(value) if isinstance(value, _Array) else value for key, value in found.items()}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except _Refused as error:
        raise DataError(f"{path}: refused, as it holds {error}, which CIFAR's files do not; fetch it anew") from None
    except (ValueError, TypeError, LookupError, OverflowError) as error:  # what a damaged stream stumbles over
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path}: damaged, or no file of CIFAR's python version ({reason}); fetch it anew") from None


def _run(content: bytes) -> object:
    """What the pickle machine (pickletools.py says what each opcode means) leaves on its stack at STOP."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        at = len(stack) - 1
        while stack[at] is not _MARK:  # an IndexError where there is none
            at -= 1
        items = stack[at + 1 :]
        del stack[at:]
        return items

    argument: Any  # of the type that the opcode says
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            size = _TUPLES[name]
            if len(stack) < size:
                raise IndexError("stack underflow")
            items = stack[len(stack) - size :]
            del stack[len(stack) - size :]
            stack.append(tuple(items))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            _is(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            for key, value in zip(items[::2], items[1::2], strict=True):
                _is(stack[-1], dict)[_is(key, str)] = value
        elif name == "GLOBAL":
            stack.append(_named(argument))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_named(f"{_is(module, str)} {_is(attribute, str)}"))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_called(_is(function, _Name).name, _is(arguments, tuple)))
        elif name == "BUILD":
            state, target = stack.pop(), stack[-1]
            if isinstance(target, _Array):
                target.state = state
            elif not isinstance(target, _Dtype):  # whose state is byte order and the like: none in a byte
                raise _Refused(f"a state for {shown(target)}")
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise _Refused(f"the instruction {name}")
    raise ValueError("no end")  # never reached: genops itself complains


def _is(value: object, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise _Refused(f"{shown(value)} for a {kind.__name__.strip('_').lower()}")
    return value


def _named(name: str) -> _Name:
    if name not in _NAMES:
        raise _Refused(f"the name {shown(name.replace(' ', '.'))}")
    return _Name(name)


def _called(name: str, arguments: tuple[Any, ...]) -> object:
    """What a call that the file asks for stands for; nothing is called."""
    if name in _RECONSTRUCT:
        return _Array()
    if name == _DTYPE and arguments:
        return _Dtype(arguments[0])
    if name == _ENCODE and len(arguments) == 2 and arguments[1] == "latin1":  # how Python 3 writes bytes for Python 2
        return _is(arguments[0], str).encode("latin1")
    raise _Refused(f"a call of {name.replace(' ', '.')}")


def _uint8(array: _Array) -> NDArray[np.uint8]:
    match array.state:
        case (int(), tuple(shape), _Dtype(word="u1" | "|u1"), bool(fortran), str() | bytes() as content):
            data = content.encode("latin1") if isinstance(content, str) else content
            if all(type(size) is int and size >= 0 for size in shape) and math.prod(shape) == len(data):
                return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")
    raise _Refused("an array that is no whole one of uint8")
