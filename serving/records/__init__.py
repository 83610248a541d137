"""What was decided and what came of it, kept in the database off the request path.

snapshot   what is kept of a request, taken at its end
queue      snapshots that wait, bounded
rows       a snapshot as rows, and as an answer of the API
inserts    one statement that inserts many rows
writer     batches from the queue into the database
redaction  what is taken out of text before it is stored
retention  old rows go
query      filters and cursors
explain    one decision in words
export     lines that `pointsman data import-logs` reads
service    all of it together
"""
