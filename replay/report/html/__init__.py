"""The report as one HTML file."""

from replay.report.dossier import Dossier


def render(dossier: Dossier) -> str:
    return dossier.title
