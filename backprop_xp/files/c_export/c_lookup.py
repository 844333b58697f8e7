"""The index of a string among others, in C."""

from collections.abc import Sequence

from backprop_xp.files.c_export.c_source import Source, string_in_c

_LOOKUP = """static int {name}_compare(const char *a, const char *b)
{{
    while (*a && *a == *b) {{
        ++a;
        ++b;
    }}
    return (unsigned char)*a - (unsigned char)*b;
}}

static const char *{name}_after(const char *text, const char *word)
{{
    while (*word && *text == *word) {{
        ++text;
        ++word;
    }}
    return *word ? 0 : text;
}}

static const char *{name}_after_spaces(const char *text)
{{
    static const char *const spaces[] = {{{spaces}}};
    for (int i = 0; i < {space_count};) {{
        const char *rest = {name}_after(text, spaces[i]);
        i = rest ? 0 : i + 1;
        text = rest ? rest : text;
    }}
    return text;
}}

/* Whether a text is a word for a missing value, with any spaces around it. */
static int {name}_is_missing(const char *text)
{{
    static const char *const words[] = {{{words}}};
    text = {name}_after_spaces(text);
    for (int i = 0; i < {word_count}; ++i) {{
        const char *rest = {name}_after(text, words[i]);
        if (rest && !*{name}_after_spaces(rest)) return 1;
    }}
    return 0;
}}

/* The code of a text: values are sorted by their bytes. */
static long long {name}_code(
    const char *text, const char *const *values, const int *codes, int n, int missing, int unknown)
{{
    int low = 0, high = n;
    while (text && low < high) {{
        const int middle = (low + high) / 2, order = {name}_compare(text, values[middle]);
        if (order == 0) return codes[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }}
    return !text || {name}_is_missing(text) ? missing : unknown;
}}
"""


def index_of_string(
    source: Source, name: str, strings: Sequence[str | None], missing: Sequence[str], value: str
) -> str:
    """Return the expression of the index of a string among others, their number for a new one.

    ``value`` is the expression of the string; NULL, ``""`` and the words ``missing`` stand for
    None, unless they are among the others. ``source`` keeps their table, sorted by bytes, under
    ``name``. All lookups of a file have the same words.
    """
    spaces = [letter for letter in map(chr, range(2**16)) if letter.isspace()]
    words, blanks = (", ".join(map(string_in_c, texts)) for texts in (missing, spaces))
    counts = {"word_count": len(missing), "space_count": len(spaces)}
    lookup = _LOOKUP.format(name=source.name, words=words, spaces=blanks, **counts)
    source.functions.setdefault("lookup", lookup)
    table = f"{source.name}_{name}"
    codes = {text: code for code, text in enumerate(strings)}
    unknown = len(codes)
    of_missing = codes.pop(None, unknown)
    # A string in C ends before a NUL, so a value with one is never given.
    texts = [str(text) for text in codes if "\0" not in str(text)]
    ranked = sorted(texts, key=str.encode)
    texts_in_c = ", ".join(map(string_in_c, ranked)) or '""'
    numbers = ", ".join(str(codes[text]) for text in ranked) or "0"
    size = max(1, len(ranked))
    source.functions[table] = (
        f"static const char *const {table}[{size}] = {{{texts_in_c}}};\n"
        f"static const int {table}_codes[{size}] = {{{numbers}}};\n"
    )
    arguments = f"{value}, {table}, {table}_codes, {len(ranked)}, {of_missing}, {unknown}"
    return f"{source.name}_code({arguments})"
