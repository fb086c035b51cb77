-- What the SQL reference says of functions that queries call, and around them: docs/sql-reference.md is made of these COMMENTs. A line
-- "name: …" is about an argument or a result column, one that begins with two blanks goes on with it,
-- and lines that begin with four are an example.

comment on function coco.split_text is $doc$Splits a text into chunks at the largest boundaries that fit: paragraphs, sentences, words.

text: the text; NULL gives no rows.
size: characters of a chunk, at most.
overlap: characters that a chunk repeats of the one before, at most.
language: plain (also NULL), or markdown, which prefers the boundaries of its elements.

n: counts from 1.
chunk: the part of the text.
byte_start: where it begins in the text in UTF-8, from 0.
byte_end: where it ends, exclusive.

    SELECT * FROM coco.split_text(E'# Head\n\nOne two three four. Five six.', 12, 0, 'markdown');

Errors: 22023 size below 1, overlap not below size, or another language.$doc$;

comment on function coco.normalize_text is $doc$A text without what is no change of content: line endings become newlines, runs of blanks one space; blanks at line ends and blank lines at the end go. Meant for the argument fingerprint.

text: the text.

    SELECT coco.normalize_text(E'One  two. \r\n\r\nThree.\r\n');$doc$;

comment on function coco.fingerprint is $doc$128 bits of the BLAKE3 hash of its arguments, of any types: values, NULLs, records. At least one argument.

The arguments are kept apart: ('a','bc'), ('ab','c') and ('a',NULL,'bc') differ. Types of extensions and those that hold
an oid count as text.

    SELECT coco.fingerprint(1, 'a'::text, null::int);$doc$;

comment on function coco.stable_uuid is $doc$A UUID of version 8 (RFC 9562) that is the same for the same arguments, whenever and in whichever database: of the BLAKE3 hash of the names of their types and their values. At least one argument.

NULL is a value of its own, 1 is another than 1::bigint, and a domain counts as the type that it is of.

    SELECT coco.stable_uuid('contracts'::text, 17, 'section 3'::text);$doc$;

comment on function coco.local_files is $doc$The files below a directory of the server's machine that a glob matches, a row for each. A file is read only for a row whose content is asked for. For superusers and members of pg_read_server_files; in a flow its owner must be one.

directory: an absolute path, as the operating system user of the server sees it.
glob: matched against path. * and ? are any characters, or one, but /; ** as a whole part of the path any number of
  directories; {a,b} one of several; [a-z] and [!a-z] a character; \ takes the meaning from the sign that follows. A dot
  at the beginning is a character as any other. ? and […] stand for one byte.

path: below directory, without a slash before it.
modified: time of the last change of the content (mtime), in microseconds. Meant as ordinal; a file that is replaced by one
  with an older time is then not seen.
size: bytes.
content: the file; NULL if it has vanished since it was listed.

Listed are ordinary files, and symbolic links to such. A directory below that cannot be read is an error: without its
rows its files would count as deleted.

    CREATE VIEW files AS SELECT * FROM coco.local_files('/etc', 'host*');
    SELECT coco.create_flow('file_lines', 'files', source_key => '{path}', ordinal => 'modified',
      query  => $$ SELECT path, n, line
                     FROM files, regexp_split_to_table(convert_from(content, 'UTF8'), '\n')
                                 WITH ORDINALITY AS t (line, n) $$,
      target => 'file_lines', key => '{path,n}');

Errors: 42501 the role, or the operating system, does not allow it; 22004 and 22023 the arguments; 58P01 and 42809 no such
directory; 38000 and 58030 a file cannot be read; 54000 it has more than 1 GB. WARNING 22021: a file's name is no text in
the database's encoding.$doc$;

comment on function coco.list_files is $doc$What coco.local_files lists, without the content.

directory: as of coco.local_files.
glob: as of coco.local_files.

path: below directory.
modified: time of the last change of the content.
size: bytes.

Errors: as of coco.local_files.$doc$;

comment on function coco.read_file is $doc$The content of a file below a directory of the server's machine; NULL if there is none, or it is no ordinary file. For superusers and members of pg_read_server_files.

directory: an absolute path.
path: below it.

Errors: as of coco.local_files.$doc$;

comment on function coco.embed is $doc$The embedding of a text by a model of a server of coco_openai. pgvector casts it to vector by itself. Takes USAGE on the server; the key is that of the user mapping of the current role, or of PUBLIC. Inside a flow it is memoised.

input: the text; NULL gives NULL.
server: the name of the foreign server.
model: as the server calls it.
dimensions: how many numbers the vector is to have, where the model leaves that open.

Errors: 22004 server or model is NULL; 22023 dimensions, or a parameter that the server does not take; 42704, 42809 and
42501 the server; 53400 its limits, or the spending cap; others as docs/functions.md says.$doc$;

comment on function coco.generate is $doc$What a model of a server of coco_openai answers to a prompt, at temperature 0. Takes USAGE on the server; the key is that of the user mapping of the current role, or of PUBLIC. Inside a flow it is memoised.

prompt: one message of a user; NULL gives NULL.
server: the name of the foreign server.
model: as the server calls it.
json_schema: a JSON schema that the server is told to hold the answer to; the result is then a JSON text.

Errors: as of coco.embed; 22000 the model refuses, or its answer was cut off.$doc$;

comment on function coco.http_post is $doc$What a service of your own answers to a POST of a JSON body. Inside a flow it is memoised. NULL for a NULL argument.

url: must lie under that of a server of coco_http which the current role has USAGE on: scheme, host and port the same, and
  the path below it, by whole parts. The longest counts, and its user mapping is what the service is asked with.
body: what is posted.

Errors: 22023 the URL is none; 42501 it lies under that of no server which may be used; others as docs/functions.md
says.$doc$;

comment on function coco.memoize is $doc$Has a function be memoised inside all flows: where a flow's query, or a view that it reads, calls it, results are kept by the content of its arguments, and computed again only for other arguments or by other code. Called again it replaces version, batch and batch_size. For the function's owner and its members.

function: with its argument types, 'subject(text)'. coco notes its name and its owner. Memoize it again after it was renamed, moved, or given to another role: until then it is called as any other function, and coco.explain says so.
version: any text; with another, all is computed again. For what coco does not see, such as a model's file.
batch: a function over arrays, 'subjects_of(text[])', that computes many results at once: it takes an array for each
  argument and returns an array of the results, in the same order.
batch_size: how many inputs it is given, at most.

    CREATE FUNCTION subject(t text) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT lower((regexp_match(t, '^(?:The )?(\w+)'))[1]) $$;
    SELECT coco.memoize('subject(text)');

Errors: 42501 the function, or the batch function, is not yours; 42809 it returns a set or a record, or is a procedure,
an aggregate or a window function; 42P13 batch does not fit; 22023 it is memoised always, or batch_size is below 1.$doc$;

comment on function coco.unmemoize is $doc$Has a function be memoised no more: the next update of a flow that calls it evaluates every item, and lets go of its results. For the function's owner and its members.

function: with its argument types.

    SELECT coco.unmemoize('subject(text)');

Errors: 42704 it is not memoised; 42501 it is not yours.$doc$;

comment on function coco.forget is $doc$Deletes the results that a flow keeps of a memoised function, under whatever version, or of all; returns how many. Nothing is evaluated for that: an item that is evaluated later has them computed again.

flow: its name.
function: with its argument types; NULL: all.

    SELECT coco.forget('doc_chunks');

Errors: 22004 flow is NULL; 42704 no such flow; 42501 it is not yours.$doc$;

comment on function coco.wrapper_options is $doc$The options of coco's foreign data wrappers: what CREATE SERVER, CREATE USER MAPPING and the argument options of coco.add_target take. Those of connectors that a build leaves out are not there.

wrapper: the foreign data wrapper.
place: server, user mapping or target.
option: its name.
required: whether it must be given.
secret: whether its value is kept out of all messages. Secrets belong in user mappings.
superuser: whether superusers alone may set it.
about: what it is for, with units and default.

    SELECT option, about FROM coco.wrapper_options() WHERE wrapper = 'coco_kafka' AND place = 'target';$doc$;
