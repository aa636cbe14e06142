"""A program to be killed: votes as fast as it can from four threads and prints each vote's id once it is stored.

    python -m tests.hostile.voter URL ASSIGNMENT PREFIX EAGER

EAGER 1 is the positive control: it says so before it stores, which is what the test must be able to notice.
"""

import itertools
import sys
import threading
from secrets import token_hex

from storage.database import Database
from storage.tables import Vote
from tests.ballot_box import newest_revision


def main(url: str, assignment: str, prefix: str, eager: bool) -> None:
    db = Database(url)
    db.migrate()
    revisions = itertools.count(newest_revision(db, assignment) + 1)
    saying = threading.Lock()

    def say(vote: Vote) -> None:
        with saying:
            sys.stdout.write(f"{vote.id} {vote.request_key}\n")
            sys.stdout.flush()

    def keep_voting() -> None:
        for revision in revisions:
            key = f"{prefix}-{revision}"
            vote = Vote(id=token_hex(8), assignment_id=assignment, reviewer_id=1, revision=revision, choice="tie", request_key=key)
            if eager:
                say(vote)
            with db.write() as session:
                session.add(vote)
            if not eager:
                say(vote)

    threads = [threading.Thread(target=keep_voting) for _ in range(4)]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "1")
