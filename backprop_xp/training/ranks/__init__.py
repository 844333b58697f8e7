"""The processes of a training: ranks of an MPI communicator, which act alike or raise alike.

They divide its rows (``RowRanks``), or the networks of its stack (``MemberRanks``). Other modules
know their protocol, ``Processes``.
"""

from backprop_xp.training.ranks.exchange import Ranks as Ranks
from backprop_xp.training.ranks.member_shares import MemberRanks as MemberRanks
from backprop_xp.training.ranks.row_shares import (
    RowRanks as RowRanks,
    takes_gpu_arrays as takes_gpu_arrays,
)
