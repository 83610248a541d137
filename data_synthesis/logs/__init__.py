"""A team's own traffic, as logs of OpenAI chat requests, made into routing data.

    reader    lines of the logs: requests, answers and labels
    collapse  lines that repeat one growing conversation become one
    detect    where personal data and secrets stand (Presidio, and the recognisers of `patterns`)
    scrub     what is written in their place, the same throughout a conversation
    importing all of it, from files to a folder that `sources.stored` reads

Nothing is written before it is scrubbed, and no error or log line quotes what was read.
"""
