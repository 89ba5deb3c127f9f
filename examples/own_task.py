"""200 orders as JSON in a fixed form, with a computed total: a task of one's own for `thirteen learn`."""

import json
import sys
from itertools import product
from pathlib import Path

ITEMS = (
    "pens cups hats figs nuts keys rings maps balls boats coins rods cars pots bags dogs eggs toys beds "
    "plums lamps fans hens pears cans jars lids logs nets oars pans pins rugs saws ropes tiles bolts"
    " seeds bulbs mats"
)


def order(number: int, item: str, place: str) -> dict[str, object]:
    """A question with its answer, a JSON object."""
    count, price = 2 + number * 5 % 8, 2 + number * 7 % 9
    text = f"{count} {place} of {item} at {price} dollars each."
    answer = {"item": item, "count": count, "price": price, "total": count * price}
    return {"question": f"Write as JSON with item, count, price and total: {text}", "answer": answer}


with Path(sys.argv[1] if len(sys.argv) > 1 else "orders.jsonl").open("w", encoding="utf-8") as file:
    places = ("boxes", "bags", "crates", "packs", "trays")
    for number, (item, place) in enumerate(product(ITEMS.split(), places)):
        file.write(json.dumps(order(number, item, place)) + "\n")
