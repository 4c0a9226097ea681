"""The experiments behind the tables; each is a command, `advanchor study NAME`.

A study is a file with TITLE, trials(base, per_kind, seeds, quick), evaluation(quick), page(found), table(found) and
plot(found, figure).
"""

STUDIES: dict[str, str] = {"rivals": "advanchor.studies.rivals"}  # the module of each
