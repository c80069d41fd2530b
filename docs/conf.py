"""Configuration of the Sphinx site: ``sphinx-build -W -b html docs docs/_build/html``."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import jinja2

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]
# On the small tables of the examples, more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import make_benchmark_picture  # noqa: E402  (the imports need the path above)
import make_guide_pictures  # noqa: E402
from api_groups import GROUPS, TEMPLATES  # noqa: E402

import skflows  # noqa: E402

project = "skflows"
author = "the skflows developers"
copyright = author
version = release = skflows.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "parameter_groups",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
myst_enable_extensions = ["dollarmath"]
default_role = "code"

# Links by URL, not by intersphinx, so that the site builds without a network.
extlinks = {"sklearn": ("https://scikit-learn.org/stable/modules/generated/%s.html", "%s")}

# MathJax is copied into the site, so that formulas need no network either. This one file draws
# them as SVG, without fonts.
MATHJAX = Path(*find_spec("sphinx-mathjax-offline").submodule_search_locations) / "static/mathjax"
mathjax_path = "tex-svg.js"

html_theme = "pydata_sphinx_theme"
html_title = "skflows"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_static_path = ["_static", str(MATHJAX / mathjax_path)]
html_css_files = ["skflows.css"]
html_js_files = ["accessible.js"]
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "logo": {"text": "skflows"},
    "footer_start": ["copyright"],
    "footer_end": [],
}
# Pages without children have an empty left sidebar.
WITHOUT_SIDEBAR = """
    install getting_started choosing mathematics benchmarks add_an_architecture changelog
"""
html_sidebars = {page: [] for page in WITHOUT_SIDEBAR.split()}

autosummary_generate = True
toc_object_entries_show_parents = "hide"
# Docstrings inherited from scikit-learn refer to its glossary.
suppress_warnings = ["ref.term"]
autodoc_typehints = "none"
# The class template lists the methods already.
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "subsection_order": [
        f"../examples/{section}"
        for section in (
            *("start_here", "real_tables", "images", "conditional", "outliers"),
            *("continuous_flows", "variational"),
        )
    ],
    "doc_module": ("skflows",),
    "backreferences_dir": "generated/backreferences",
    "remove_config_comments": True,
    # Show tables and estimators, but not the lists of artists that matplotlib returns.
    "capture_repr": ("_repr_html_",),
    "show_memory": False,
    "parallel": 2,  # examples at a time; each may use all cores
    "write_computation_times": False,
    "min_reported_time": 1,
}


def write_if_changed(path, text):
    """Write a generated page if it has changed, so that incremental builds can skip it."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def render(name, template=None, **values):
    """Render the page ``name`` from its template."""
    text = (DOCS / "_templates" / (template or name)).read_text(encoding="utf-8")
    write_if_changed(DOCS / name, jinja2.Template(text).render(**values) + "\n")


# Generated: a page for each group of the API, and the benchmarks page with the conclusions in
# benchmarks/, whose pages are copied. The landing page and the user guide have pictures.
render("api.rst", groups=GROUPS)
for page, (title, introduction, modules) in GROUPS.items():
    values = {"introduction": introduction, "modules": modules, "templates": TEMPLATES}
    render(f"api/{page}.rst", "api_group.rst", title=title, **values)
pages = {}
(DOCS / "benchmarks").mkdir(exist_ok=True)
for path in sorted((ROOT / "benchmarks").glob("[a-z]*.md")):
    write_if_changed(DOCS / "benchmarks" / path.name, path.read_text("utf-8"))
    title, conclusion, _ = path.read_text("utf-8").split("\n\n", 2)
    conclusion = re.sub(r"\]\((\w+\.md)", r"](benchmarks/\1", conclusion)  # links between pages
    pages[path.stem] = title.removeprefix("# "), conclusion
render("benchmarks.md", pages=pages)
make_benchmark_picture.main()
make_guide_pictures.main(redraws=False)


def without_labels(app, what, name, obj, options, lines):
    """Remove the links to scikit-learn's user guide from docstrings that are inherited from it."""
    if getattr(obj, "__module__", "").startswith("sklearn."):
        lines[:] = [re.sub(r":ref:`([^<`]+?) ?<[^>]+>`", r"\1", line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", without_labels)
