"""Lists of modules that a type checker knows the members of."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from torch import nn

M = TypeVar("M", bound=nn.Module)

if TYPE_CHECKING:

    class Modules(nn.ModuleList, Generic[M]):
        """An `nn.ModuleList` of modules of one class."""

        def __init__(self, modules: Iterable[M] = ()) -> None: ...
        def __iter__(self) -> Iterator[M]: ...
        @overload
        def __getitem__(self, index: int) -> M: ...
        @overload
        def __getitem__(self, index: slice) -> "Modules[M]": ...
        def __getitem__(self, index: int | slice) -> Any: ...

else:
    Modules = nn.ModuleList
