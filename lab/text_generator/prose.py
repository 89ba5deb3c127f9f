"""Templates of everyday sentences. The fields are words, see fields.py; they need not make sense, only occur."""

SENTENCES = (
    "The {adj} {thing} {verbed} the {person} in {place}.",
    "{Name} {surname} {verbs} {adverb} with a {person} and {things}, {adverb2} {verbing} the {idea}.",
    "{Adverb}, {verbing} {mass} is {adj}; {adverb} it has {verbdone} much {idea}.",
    "“I don’t {verb} it,” said {name}. “We’re {verbing} – it’s {name2}’s {idea}.”",
    '"You can\'t {verb} {adverb}," {name} {surname} said, "but they\'ll {verb2} what you\'ve {verbdone}."',
    "{Things} and {things} are {adj}, {persons} are {adj2}.",
    "{Verb} the {mass} {adverb} and {verb2} it {adverb2} {adj} {ideas}.",
    "{Verbing} {things} {verbs} {idea}, {adj} {idea2} and {ideas} {adverb}.",
    "{Idea}: {adj} {ideas} of {idea2} in {place} ({adverb}).",
    "{Adj} {persons} from {place} {verbed} {adverb} {adverb2}.",
    "She {verbed} her {thing} {adverb}, {adverb2} he {verbs} his {adj} {things}.",
    "{Adverb} {adverb} {adverb2} {adverb3} the {idea}.",
    "{Name} and {name}: a {thing}-{verbing} {person}, a {adj}-{thing2} {unit}, and {name2}’s two-{unit2} {thing3}.",
    "{Person} {name}, {adj} and {adj2}, {verbed} a/{unit} per {unit}; {units} of {mass}/{unit2} were {verbdone}.",
    "{Mass}, {mass} & {mass2}...\n{Units}: {units}, {unit}s/{thing}\n- {thing}: {adj}\n- {things}: {adj2}\n* {Verb} {mass3}",
    "{Place} has {verbdone} {things}. {Place2} {verbs} {adverb}! Why {verb} the {persons}?",
    "$\\{latex}$ \\{latex}{{x}} \\({latex}\\) \\[\\{latex2}\\] \\left(\\{latex3}\\right) {latex4} \\text{{ {thing}}} \\text{{{idea}}} {{{unit}}}",
)
