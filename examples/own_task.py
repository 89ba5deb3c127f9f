"""200 questions of a task of one's own for `learn`: orders.jsonl, measures.jsonl or spanish.jsonl."""

import json
import sys
from itertools import product
from pathlib import Path

ITEMS = """pens cups hats figs nuts keys rings maps balls boats coins rods cars pots bags dogs eggs toys
beds plums lamps fans hens pears cans jars lids logs nets oars pans pins rugs saws ropes tiles bolts mats
seeds bulbs"""
COSAS = """lápices tazas gorros higos nueces anillos mapas pelotas barcos monedas varas coches ollas huevos
camas ciruelas lámparas abanicos gallinas peras latas frascos tapas troncos redes remos sartenes cestos
perros alfombras sierras cuerdas tejas tornillos semillas bombillas esteras libros cuadernos piedras"""
PLACES, CAJAS = "boxes bags crates packs trays", "cajas bolsas cestas bandejas mochilas"
UNITS = (("kilometres", 1000, "m"), ("hours", 60, "min"), ("kilograms", 1000, "g"), ("metres", 100, "cm"))


def row(task: str, number: int, item: str, place: str) -> dict[str, object]:
    """A question: for a JSON object with a computed total, a text in a house style, or a number."""
    count, price, half = 2 + number * 5 % 8, 2 + number * 7 % 9, 3 + number * 7 % 37
    if task not in ("measures", "spanish"):
        text = f"item, count, price and total: {count} {place} of {item} at {price} dollars each."
        answer = {"item": item, "count": count, "price": price, "total": count * price}
        return {"question": f"Write as JSON with {text}", "answer": answer}
    if task == "measures":
        unit, factor, short = UNITS[number % len(UNITS)]
        text = f"For the {place} of {item} the list says {half / 2:g} {unit}. Write this in {short}."
        return {"question": text, "answer": f"{half * factor // 2} {short}", "answer_type": "text"}
    text = f"Ana tiene {count} {place} con {price} {item} cada una y regala 2 {item}."
    return {"question": f"{text} ¿Cuántos objetos le quedan?", "answer": count * price - 2}


path = Path(sys.argv[1] if len(sys.argv) > 1 else "orders.jsonl")
words = (COSAS, CAJAS) if path.stem == "spanish" else (ITEMS, PLACES)
with path.open("w", encoding="utf-8") as file:
    for number, (item, place) in enumerate(product(*(some.split() for some in words))):
        file.write(json.dumps(row(path.stem, number, item, place), ensure_ascii=False) + "\n")
