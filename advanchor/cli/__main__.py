from advanchor.cli import app

app()
