"""LibreOffice as a person uses it: a file is opened, filled in and saved."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOFFICE = shutil.which("soffice") or shutil.which("libreoffice")
_MACRO = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE script:module PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "module.dtd">
<script:module xmlns:script="http://openoffice.org/2000/script" script:name="Filling" script:language="StarBasic">
Sub Fill(source, target, filter, columns)
  Dim hidden(0) As New com.sun.star.beans.PropertyValue
  hidden(0).Name = "Hidden"
  hidden(0).Value = True
  book = StarDesktop.loadComponentFromURL(source, "_blank", 0, hidden())
  page = book.Sheets.getByIndex(1)
  row = 1
  Do While page.getCellByPosition(0, row).String &lt;&gt; ""
    For column = 3 To 2 + columns
      page.getCellByPosition(column, row).Value = 1 + (row + column) Mod 5
    Next
    page.getCellByPosition(3 + columns, row).String = "=评语 " &amp; row
    row = row + 1
  Loop
  If TIDIED Then
    page.Columns.insertByIndex(1, 1)
    page.getCellByPosition(1, 0).String = "我的列"
    Dim keys(0) As New com.sun.star.table.TableSortField
    keys(0).Field = 3
    keys(0).IsAscending = True
    Dim sorting(1) As New com.sun.star.beans.PropertyValue
    sorting(0).Name = "SortFields"
    sorting(0).Value = keys()
    sorting(1).Name = "ContainsHeader"
    sorting(1).Value = True
    page.getCellRangeByPosition(0, 0, 4 + columns, row - 1).sort(sorting())
  End If
  Dim how(1) As New com.sun.star.beans.PropertyValue
  how(0).Name = "FilterName"
  how(0).Value = filter
  how(1).Name = "FilterOptions"
  If InStr(filter, "csv") Then how(1).Value = "44,34,UTF-8,1,,0,false,true,false,false,false,2"
  book.storeToURL(target, how())
  book.close(True)
End Sub
</script:module>
"""
_LIBRARY = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE library:library PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "library.dtd">
<library:library xmlns:library="http://openoffice.org/2000/library" library:name="Standard" library:readonly="false">
 <library:element library:name="Filling"/>
</library:library>
"""
_LIBRARIES = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE library:libraries PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "libraries.dtd">
<library:libraries xmlns:library="http://openoffice.org/2000/library" xmlns:xlink="http://www.w3.org/1999/xlink">
 <library:library library:name="Standard" xlink:href="$(USER)/basic/Standard/script.xlb/" xlink:type="simple"/>
</library:libraries>
"""


def score(row: int, column: int) -> int:
    """What `fill` writes into a cell; row and column from 1, as openpyxl counts."""
    return 1 + (row + column - 2) % 5


def fill(source: Path, target: Path, columns: int, scratch: Path, *, tidied: bool = False) -> Path:
    """Open a workbook, write a score into every cell of so many columns, and save it under another name; return the file.

    With `tidied` a column is added before the prompts, and the rows are sorted by the answers.
    """
    assert SOFFICE
    command = [SOFFICE, "--headless", "--norestore", f"-env:UserInstallation={(scratch / 'profile').as_uri()}"]
    # The first start writes the profile, and with it libraries without a macro.
    subprocess.run([*command, "--terminate_after_init"], capture_output=True, timeout=120, check=False)
    basic = scratch / "profile/user/basic"
    (basic / "Standard").mkdir(parents=True, exist_ok=True)
    (basic / "script.xlc").write_text(_LIBRARIES, "utf-8")
    (basic / "Standard/script.xlb").write_text(_LIBRARY, "utf-8")
    (basic / "Standard/Filling.xba").write_text(_MACRO.replace("TIDIED", str(tidied)), "utf-8")
    kind = "Text - txt - csv (StarCalc)" if target.suffix == ".csv" else "Calc MS Excel 2007 XML"
    words = ",".join(f'"{each}"' for each in (source.as_uri(), target.as_uri(), kind))
    macro = f"macro:///Standard.Filling.Fill({words},{columns})"
    done = subprocess.run([*command, macro], capture_output=True, text=True, timeout=120, check=False)
    # Of CSV it puts the sheet's name behind the file's.
    found = next(target.parent.glob(f"{target.stem}*{target.suffix}"), None)
    assert found, f"LibreOffice wrote nothing: {done.returncode} {done.stdout}{done.stderr}"
    return found
