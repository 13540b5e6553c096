"""What Sphinx needs to know: Markdown by MyST, the theme, and no more."""

import importlib.metadata

project = "policygrad"
author = "the policygrad developers"
release = importlib.metadata.version("policygrad")
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["**/solutions/**"]

myst_heading_anchors = 4  # links such as guide.md#ppo
suppress_warnings = ["myst.header"]  # a page may begin with its second level

html_theme = "furo"
html_title = "policygrad"
html_css_files = ["custom.css"]
html_static_path = ["static"]
html_show_sphinx = False
html_show_copyright = False  # LICENSE has it
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072b2", "color-brand-content": "#0072b2"},
    "dark_css_variables": {"color-brand-primary": "#56b4e9", "color-brand-content": "#56b4e9"},
}
highlight_language = "none"  # indented blocks are commands or output unless they say that they are Python
