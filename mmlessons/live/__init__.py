"""活的笔记本：边训练边拖动滑块 / Live notebooks: move a slider while the model trains.

这一层不认识模型和数据，只由笔记本载入。`live.page()` 放在每个笔记本的第一个代码格。

This layer knows nothing of models or data and is imported by notebooks alone. `live.page()` goes into the first
code cell of every notebook.
"""

from .bars import bars, shares
from .cards import Card, gallery, note, search_box, table
from .chart import chart
from .claims import claims
from .controls import buttons, field, menu, slider, switch
from .curve import Curves, Plot
from .explore import beside, explore, stack
from .figure import picture, scatter
from .film import film, strip
from .kernel import is_live
from .language import page
from .output import Output
from .pad import pad
from .panel import Training, show
from .source import source
from .weights import weights

__all__ = ["Card", "Curves", "Output", "Plot", "Training", "bars", "beside", "buttons", "chart", "claims", "explore",
           "field", "film", "gallery", "is_live", "menu", "note", "pad", "page", "picture", "scatter", "search_box",
           "shares", "show", "slider", "source", "stack", "strip", "switch", "table", "weights"]
