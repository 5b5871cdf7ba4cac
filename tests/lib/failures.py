"""What a run of ctest says of each suite that failed, a few lines each: the end of a long log is what is kept of it."""
import re
import sys

LINES, WIDTH = 12, 400
# where a suite says what went wrong; without any its last lines stand for it
TELLING = re.compile(r'^\w*(Error|Exception|Timeout\w*|Empty)\b|^  File "|:[FE]:|assertion_failed|fail_stop|^SUMMARY|Sanitizer: |runtime error|'
                     r"Assertion .* failed")


def suites(text):
    """Name, output and end of each."""
    for part in re.split(r"(?m)^\d+/\d+ Testing: ", text)[1:]:
        name, _, rest = part.partition("\n")
        output, _, end = rest.rpartition("<end of output>")
        yield name, output, end


def telling(output):
    lines = [line for line in output.splitlines() if line.strip()]
    found = [line for line in lines if TELLING.search(line)]
    return found[-LINES:] if found else lines[-LINES:]


def main(path):
    with open(path, errors="replace") as handle:
        text = handle.read()
    for name, output, end in suites(text):
        if "Test Passed." in end:
            continue
        print("=== %s: %s" % (name, " ".join(end.split())[:100]))
        for line in telling(output):
            print(line[:WIDTH])


if __name__ == "__main__":
    main(sys.argv[1])
