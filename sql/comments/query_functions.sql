-- COMMENTs on the functions that queries call, and on the functions for memoization and connectors. scripts/reference.sql
-- prints them into docs/sql-reference.md and expects this form: a line "name: …" describes an argument or a result column,
-- a line with an indent of two blanks continues it, and lines with an indent of four blanks are an example.

comment on function coco.split_text is $doc$Splits a text into chunks at the largest boundaries that fit: paragraphs, sentences, words.

text: text to split; NULL returns no rows.
size: maximum number of characters in a chunk.
overlap: maximum number of characters that a chunk repeats from the previous chunk, not counting indentation at its beginning.
language: plain or NULL; or markdown, which prefers the boundaries of Markdown elements.

n: number of the chunk, from 1.
chunk: part of the text.
byte_start: offset of the chunk in the text, in bytes of UTF-8, from 0.
byte_end: offset of the end of the chunk, exclusive.

    SELECT * FROM coco.split_text(E'# Head\n\nOne two three four. Five six.', 12, 0, 'markdown');

Errors: 22023: size is below 1, overlap is not below size, or language is not supported.$doc$;

comment on function coco.split_file is $doc$Splits the text of a file by the structure of its language: source code at the nodes of its syntax tree, Markdown at its elements, other texts at paragraphs, sentences and words.

text: text to split; NULL returns no rows.
size: maximum number of characters in a chunk.
overlap: maximum number of characters that a chunk repeats from the previous chunk, not counting indentation at its beginning.
language: plain, markdown, bash, c, cpp, csharp, css, go, html, java, javascript, json, kotlin, php, python, ruby, rust, sql,
  swift, typescript, tsx or yaml. NULL: the language of file_name.
file_name: name of the file, with or without directories. Its extension determines the language. A file with another
  extension is plain text.

n: number of the chunk, from 1.
chunk: part of the text. A chunk of source code or Markdown of several lines keeps the indentation of its first line.
byte_start: offset of the chunk in the text, in bytes of UTF-8, from 0.
byte_end: offset of the end of the chunk, exclusive.
line_start: number of the chunk's first line, from 1.
line_end: number of the chunk's last line.
path: names around the chunk, the outermost first. For Markdown these are the headings of the section in which the chunk
  begins. For source code they are the classes, functions and other declarations that contain the whole chunk.

A text with syntax errors is split by what the parser can read. The parser runs in a process of its own, for at most 60
seconds and with at most 1 GB of memory.

    SELECT n, line_start, line_end, path
      FROM coco.split_file(E'class Sea:\n    def pull(self):\n        return 1\n', 50, file_name => 'sea.py');

Errors: 22023: size is below 1, overlap is not below size, or language is not supported. 54000: parsing exceeds a limit.
0A000: coco was built without the feature code.$doc$;

comment on function coco.extract_text is $doc$Extracts the text of a file: PDF, HTML, DOCX, XLSX, PPTX, EPUB, e-mail, RTF and plain text. Headings, lists, tables and links become Markdown. Nothing in the file is executed, and no other file or address is read.

content: content of the file; NULL returns NULL.
media_type: media type, such as application/pdf or text/html; charset=utf-8. NULL, or application/octet-stream, determines
  the format from the content.

The result for HTML is the title and the main content, without navigation. The result for an e-mail message is its usual headers
and its text, and the names of attachments. The encoding of plain text is that of its byte order mark or of charset. Otherwise
coco determines the encoding from the bytes. The page of a scanned PDF file has no text. XLS, XLSB and ODS files are read like
XLSX files.

A library that reads a format runs in a process of its own, for at most 60 seconds and with at most 1 GB of memory. A text has
at most 256 MB.

    SELECT coco.extract_text('<html><title>Tides</title><p>The moon <a href="https://example.org/">pulls</a>.');

Errors: 22023: the media type is not supported, or the content has no supported format. 22P03: the content is damaged or
encrypted. 54000: reading the content exceeds a limit. 0A000: coco was built without the feature documents.$doc$;

comment on function coco.extract_pages is $doc$Extracts the text of a file, one row for each page. A page is a page of a PDF file, a slide of a PPTX file, a sheet of an XLSX file, or a chapter of an EPUB file. Any other file is one page.

content: content of the file; NULL returns no rows.
media_type: as in coco.extract_text.

page: number of the page, from 1.
text: text of the page; empty if the page has none.

    SELECT * FROM coco.extract_pages('One page.');

Errors: those of coco.extract_text.$doc$;

comment on function coco.normalize_text is $doc$Removes from a text differences that do not change its content. Line endings become newlines, and runs of blanks become one space. Blanks at line ends and blank lines at the end disappear. Use it in the argument fingerprint of a source.

text: text to normalize.

    SELECT coco.normalize_text(E'One  two. \r\n\r\nThree.\r\n');$doc$;

comment on function coco.fingerprint is $doc$Computes 128 bits of the BLAKE3 hash of its arguments. It takes one or more arguments of any type: values, NULLs, records.

The function keeps the arguments apart: ('a','bc'), ('ab','c') and ('a',NULL,'bc') differ. Values of types that belong to
an extension or contain an oid count as text.

    SELECT coco.fingerprint(1, 'a'::text, null::int);$doc$;

comment on function coco.stable_uuid is $doc$Computes a UUID of version 8 (RFC 9562) that depends only on the arguments: it is the same at any time and in any database. It is derived from the BLAKE3 hash of the arguments' type names and values. It takes one or more arguments.

NULL is a value of its own. 1 and 1::bigint give different UUIDs. A domain counts as its base type.

    SELECT coco.stable_uuid('contracts'::text, 17, 'section 3'::text);$doc$;

comment on function coco.local_files is $doc$Lists the files below a directory of the server's machine that match a glob, one row for each file. It reads a file only if the query asks for the content of its row. The caller must be a superuser or a member of pg_read_server_files; in a flow, the flow's owner must be one.

directory: absolute path, as the server's operating system user sees it.
glob: pattern for path. * matches any number of characters except /, and ? matches one of them. ** as a whole component of
  the path matches any number of directories. {a,b} matches one of several alternatives. [a-z] matches a character in the
  range, and [!a-z] a character outside it. \ removes the special meaning of the next character. A leading dot is like any
  other character. ? and […] match one byte.

path: path below directory, without a leading slash.
modified: time of the last change of the content (mtime), with microsecond precision. Intended as the ordinal of a source;
  coco then misses a file that is replaced by a file with an older time.
size: size of the file in bytes.
content: content of the file; NULL if the file has vanished since the function listed it.

The function lists ordinary files, and symbolic links to ordinary files. If it cannot read a subdirectory, it raises an
error. Without this error, the files in the subdirectory would count as deleted.

    CREATE VIEW files AS SELECT * FROM coco.local_files('/etc', 'host*');
    SELECT coco.create_flow('file_lines', 'files', source_key => '{path}', ordinal => 'modified',
      query  => $$ SELECT path, n, line
                     FROM files, regexp_split_to_table(convert_from(content, 'UTF8'), '\n')
                                 WITH ORDINALITY AS t (line, n) $$,
      target => 'file_lines', key => '{path,n}');

Errors: 42501: the role or the operating system does not allow it. 22004, 22023: an argument is NULL or not valid. 58P01,
42809: the directory does not exist or is not a directory. 38000, 58030: a file cannot be read. 54000: a file is larger than
1 GB. WARNING 22021: the name of a file is not valid in the database's encoding.$doc$;

comment on function coco.list_files is $doc$Lists the same files as coco.local_files, without their content.

directory: as in coco.local_files.
glob: as in coco.local_files.

path: path below directory, without a leading slash.
modified: time of the last change of the content (mtime), with microsecond precision.
size: size of the file in bytes.

Errors: those of coco.local_files.$doc$;

comment on function coco.read_file is $doc$Reads the content of a file below a directory of the server's machine. Returns NULL if the file does not exist or is not an ordinary file. The caller must be a superuser or a member of pg_read_server_files.

directory: absolute path.
path: path of the file below directory.

Errors: those of coco.local_files.$doc$;

comment on function coco.embed is $doc$Returns the embedding of a text, computed by a model of a coco_openai server. pgvector casts the result to vector automatically. The current role needs USAGE on the server; the API key is that of the user mapping of the current role, or of PUBLIC. Inside a flow, coco memoizes the function.

input: text to embed; NULL returns NULL.
server: name of the foreign server.
model: name of the model on that server.
dimensions: number of elements of the vector, for models that allow a choice.

Errors: 22004: server or model is NULL. 22023: dimensions is not valid, or the server does not accept a parameter. 42704,
42809, 42501: the foreign server does not exist, is of another wrapper, or you may not use it. 53400: the limits of the
server, or the spending cap, are reached. For other errors, see docs/functions.md.$doc$;

comment on function coco.create_search is $doc$Creates a search of the texts or files in a table. Declares a flow with this name, which splits each text into chunks and stores each chunk with its words (tsvector) and its embedding in a table of the same name. Also creates indexes on words and embeddings, a policy, and a function of the same name. By the policy, a role sees only the chunks of rows that it sees in the source. The function calls coco.search, and returns the key of the source in columns of its types. The flow is an ordinary one: coco.update fills the table, coco.start keeps it up to date, and coco.drop_flow also drops the function.

search: name of the search, the flow, the table and the function. The table and the function are created in the first schema of search_path.
source: table with a primary key.
text: column with the texts. If its type is bytea, the column contains files, whose text coco extracts.
server: foreign server of the wrapper coco_openai; NULL for a search by words alone.
model: name of the model on that server.
dimensions: number of elements to ask the model for. By default coco embeds a word to find out how many the model returns.
size: largest size of a chunk in characters.
overlap: number of characters that a chunk repeats of the one before it.
language: language of the texts, as in coco.split_text (plain, markdown) or coco.split_file (a programming language).
configuration: text search configuration.
text_prefix, query_prefix: what the model reads before each chunk, and before each query. Some models need this, such as
'passage: ' and 'query: '. The table contains the chunks without it.
if_not_exists: if a flow has this name, do nothing, with a NOTICE.
search_path: search path of the flow.

Errors: 22004: an argument is NULL. 22023: an argument is not valid. 42701: a key column has a name that the search uses
itself. 42703: the column does not exist. 42704: the extension vector or the server does not exist. 55000: the source has
no primary key. Also the errors of coco.create_flow and coco.embed.$doc$;

comment on function coco.search is $doc$Finds the chunks of texts that match a query, and returns the best ones first. The caller needs SELECT on the table of the search and on its source, and finds only chunks that its policies show. The owner of the search embeds the query, so the caller needs no rights on the model's server. A session keeps the embeddings of its last 100 queries for ten minutes.

search: name of a search that coco.create_search has created.
query: words or a question. The words are those of websearch_to_tsquery: "a phrase", or, -without. Chunks that contain all words come first; if the query has no operators, chunks that contain some of the words follow.
max_results: largest number of results, 1 to 1000.
mode: words, vectors, or hybrid (both, fused by their places in the two rankings).

source_key: key of the source row, as a JSON object.
chunk_no: number of the chunk in its text, from 1.
chunk: text of the chunk.
score: sum of 1 / (60 + place) over the rankings that contain the chunk (reciprocal rank fusion). Only chunks that the caller sees have a place.

Errors: 22004: an argument is NULL. 22023: max_results or mode is not valid. 42501: you may not read the table of the
search. 42704: the search does not exist. 55000: the search has no vectors. Also the errors of coco.embed.$doc$;

comment on function coco.generate is $doc$Returns the answer of a model of a coco_openai server to a prompt, at temperature 0. The current role needs USAGE on the server; the API key is that of the user mapping of the current role, or of PUBLIC. Inside a flow, coco memoizes the function.

prompt: message of a user; NULL returns NULL.
server: name of the foreign server.
model: name of the model on that server.
json_schema: JSON schema to which coco tells the server to restrict the answer; the result is then a JSON text.

Errors: 22000: the model refuses, or its answer was cut off. Also the errors of coco.embed.$doc$;

comment on function coco.http_post is $doc$Sends a JSON body to a service of your own in a POST request and returns its answer. Returns NULL for a NULL argument. Inside a flow, coco memoizes the function.

url: URL below that of a coco_http server on which the current role has USAGE. Scheme, host and port must be the same, and
  the path must begin with all components of the server's path. Among several such servers, the longest URL counts; coco
  uses the user mapping of that server.
body: JSON body of the request.

Errors: 22023: the URL is not valid. 42501: the URL is not below that of a server that you may use. For other errors, see
docs/functions.md.$doc$;

comment on function coco.memoize is $doc$Memoizes a function in all flows. When a flow's query, or a view that it reads, calls the function, coco stores the result by argument values and reuses it until the code changes. Another call for the same function replaces version, batch, batch_size and ttl. The caller must be the function's owner or a member of that role.

function: function with its argument types, as in 'subject(text)'. coco records its name and its owner. After the function
  was renamed, moved, or given to another role, memoize it again. Until then coco calls it like any other function, and
  coco.explain reports it.
version: any text; if it changes, coco computes all results again. Use it for changes that coco does not see, such as a
  new model file.
batch: function over arrays, as in 'subjects_of(text[])', that computes many results in one call. It takes an array for each
  argument and returns an array of the results, in the same order.
batch_size: maximum number of inputs in one call of batch.
ttl: maximum age of a result that an item uses; NULL for none. When coco evaluates an item, it computes older results again.
  The age alone evaluates no item: coco.update(flow, 'refresh') evaluates all. A month counts as 30 days.

    CREATE FUNCTION subject(t text) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT lower((regexp_match(t, '^(?:The )?(\w+)'))[1]) $$;
    SELECT coco.memoize('subject(text)');

Errors: 42501: the function, or the batch function, is not yours. 42809: the function returns a set or a record, or is a
procedure, an aggregate or a window function. 42P13: batch does not fit the function. 22023: coco always memoizes the
function, batch_size is below 1, or ttl is not greater than 0.$doc$;

comment on function coco.unmemoize is $doc$Stops memoizing a function. The next update of each flow that calls it re-evaluates every item and deletes the stored results. The caller must be the function's owner or a member of that role.

function: function with its argument types.

    SELECT coco.unmemoize('subject(text)');

Errors: 42704: the function is not memoized. 42501: the function is not yours.$doc$;

comment on function coco.clear_memo is $doc$Deletes stored results of memoized functions, for all versions of their code. Returns the number of deleted results. The call does not evaluate anything: coco computes a result again when it next evaluates an item that needs it. A flow whose results were deleted does not reuse older results of other flows either.

flow: name of the flow, which may be dropped: the call also deletes the results that coco keeps of dropped flows of this
  name, and those of the flow's versions. NULL: all flows that the current role owns, and all of its dropped flows.
function: function with its argument types; NULL: all memoized functions of the flow.

    SELECT coco.clear_memo('doc_chunks');

Errors: 22004: flow and function are NULL. 42704: the flow does not exist, and coco keeps no results of a dropped flow of that
name. 42883: the function does not exist. 42501: the flow is not yours.$doc$;

comment on function coco.connector_options is $doc$Lists the options of coco's foreign data wrappers: those that CREATE SERVER, CREATE USER MAPPING and the argument options of coco.add_target accept. It does not list options of connectors that are not part of the build.

wrapper: name of the foreign data wrapper.
scope: object that takes the option: server, user mapping or target.
option: name of the option.
required: whether the option is required.
secret: whether coco keeps the value out of all messages. Secrets belong in user mappings.
superuser: whether only superusers may set the option.
description: meaning of the option, with units and default.

    SELECT option, description FROM coco.connector_options() WHERE wrapper = 'coco_kafka' AND scope = 'target';$doc$;
