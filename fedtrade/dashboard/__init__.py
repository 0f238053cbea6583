"""The report of a run: one page for the browser, one table for the terminal.

`Report` is all that either of them sees. The page is a pure function of it: no clock, no file, no
network, so the same report gives the same bytes.
"""

from fedtrade.dashboard.page import render as render
from fedtrade.dashboard.report import ActionPoint as ActionPoint
from fedtrade.dashboard.report import ChainReport as ChainReport
from fedtrade.dashboard.report import Epsilon as Epsilon
from fedtrade.dashboard.report import Forecasts as Forecasts
from fedtrade.dashboard.report import Governance as Governance
from fedtrade.dashboard.report import LevelPoint as LevelPoint
from fedtrade.dashboard.report import MessageTaken as MessageTaken
from fedtrade.dashboard.report import MirrorReport as MirrorReport
from fedtrade.dashboard.report import Proposal as Proposal
from fedtrade.dashboard.report import RangeSpan as RangeSpan
from fedtrade.dashboard.report import Report as Report
from fedtrade.dashboard.report import RoundPoint as RoundPoint
from fedtrade.dashboard.report import SafeReport as SafeReport
from fedtrade.dashboard.report import Score as Score
from fedtrade.dashboard.report import SoloScore as SoloScore
from fedtrade.dashboard.terminal import summary_table as summary_table
