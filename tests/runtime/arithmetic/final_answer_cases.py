"""Test cases of the final-answer parser: real model outputs and hand-written rare forms, labelled by hand."""

import re

# Last lines of real outputs, correct and wrong. Each follows a line "=> LABEL" with the answer that a person
# reads in it. The questions are from GSM8K's training split and SVAMP. The prompts ask for steps, a box,
# ####, a final line, a short calculation, or nothing. Truncated outputs ran out of tokens. Long lines are
# cut at the beginning.

# SmolLM2-135M-Instruct, Q4_1
_SMOLLM2 = r"""
=> 10
we need to find the tax paid by John. 10% of $100,000 is 10% of $100,000, which is 10% of $100,000.

#### 10

The answer is: 10
=> 2
The total number of pages in the book is 183 pages / 61 pages per chapter = 2.25 pages.

#### 2
The answer is 2.
=> 54.5
So, 56 - 2" (total) = 54.5" is the length of her hair, which is the
=> 4000
Final answer: $4000.

The total cost of the iPhone, iPad, and TV is $4000
=> 28
Solve it and finish with a line: 10 + 18 = 28

The answer is 28.
=> None
Solve it and finish with a line "Final answer: …"

The answer is "A"
=> 32500
To reach this goal, she needs to get 6000 x 55 = 32500 oranges of fruit.
=> 1500000
* 5100 = 510000 pounds. The total weight of one white rhino is 510000 + 100000 = 1500000 pounds.

So, 7 white rhinos and 8 black rhinos weigh 1500000 pounds.
=> 200
= $40, and each cat costs $4 * 10 = $40. So the total cost of the dog and cat is $40 + $40 = $100.
#### 100 + 100 = 200
The total cost of the dog and cat is $200.
#### 200
=> 18
To calculate the number of days, multiply 800 by 1800, which gives 168000.

The answer is \boxed{}\textbf{18 months, 3.8 days}
=> 1/4
19. 1/4 cup of coffee
20. 1/4 cup of coffee

Final answer: 1/4 cup of coffee
=> 25
#### 25
#### 25
#### 25
#### 25
#### 25
#### 25
#### 25
#### 25
#### 25
=> 20
20% of 1000 = 0.2 * 100 = 20
30% of 1000 = 0.3 * 100 = 30
50% of 1000 = 0.5 * 100 = 50

Final answer: 20 + 30 + 50 = 20

The answer is 20.
=> 31
Yulia spent $31 to operate her lemonade stand, which is a gross revenue of $31.
=> 8
Earned income + Combined income = 4 + 4 = 8

So, the combined income is 8.

#### answer
##### 8
=> 4
6. Now we can find the number of jeans by adding these two values: 1 + 1 = 2.

So, there's a total of 2-3 + 2 = 4 more jeans than scarves.
=> 10
it will take to reach 100%, we can divide 100 by 10, which gives us a final answer of 10 hours.

The answer is \boxed{}.
"""

# Qwen2.5-Coder-0.5B-Instruct, Q4_K_M
_QWEN = r"""
=> 10
\[
\text{Total seeds planted} = \frac{40}{4} = 10
\]

Next, we determine the total revenue from
=> 72
\[ 18 \text{ meters} \times 4 \text{ meters/flower} = 72 \text{ flowers} \]

Thus, the total number of flowers that bloom because of this trip is:
\[ \boxed{72} \]
=> 195
Thus, Marcia will spend \(\boxed{195}\) dollars on her wardrobe.
=> 18
another 2" of hair. The total length of her hair after these cuts is \(24 - 12 + 2 = 18\) inches.
=> 8
Final answer: 8
=> 50
\[
\frac{2500 \text{ milliliters}}{50 \text{ liters/day}} = 50 \text{ days}
\]

Therefore, Jacob needs \(\boxed{50}\) days to fill up his water tank.
=> 2540
\$1400 + \$100 + \$140 = \$2540
\]

Therefore, Janet makes \(\boxed{2540}\) dollars.
=> 105
\[ 60 - 265 = -105 \]

be negative, we interpret this as Paul had 105 more erasers than crayons. Therefore, the answer is:
\[ \boxed{105} \]
=> 16800
\text{Combined earnings} = 4800 + 12000 = 16800
\]

Therefore, the combined earnings of Er
=> 55
5. The remaining amount after buying the paintbrushes is \(55.00 - 0.00 = 55.00\).

Therefore, the amount of money Tonya spent on paintbrushes is \(\boxed{55.0
"""

_BY_HAND = [
    # \boxed{…}
    (r"so \boxed{42}", "42"),
    (r"\boxed{\text{42 apples}}", "42"),
    (r"\boxed{42\text{ km}^{2}}", "42"),
    (r"\boxed{\textbf{\text{7}}}", "7"),
    (r"\boxed{x_{1} = 5}", "5"),
    (r"\boxed{-\dfrac{3}{4}}", "-0.75"),
    (r"\boxed{2\frac{1}{3}}", "7/3"),
    (r"\boxed{\frac12}", "0.5"),
    (r"\boxed{1{,}234}", "1234"),
    (r"\boxed{12\,345}", "12345"),
    (r"\boxed{\$1,234.50}", "1234.5"),
    (r"\boxed{75\%}", "75"),
    (r"\boxed{10^3}", "1000"),
    (r"\boxed{2^{5}}", "32"),
    (r"\boxed{2^{-3}}", "0.125"),
    (r"\boxed{45^\circ}", "45"),
    (r"\boxed{\dfrac{1}{-2}}", "-0.5"),
    (r"$\boxed{ 3.0 \times 10^{5} }$", "300000"),
    (r"\boxed{-½}", "-0.5"),
    (r"\boxed{- 3}", "-3"),
    (r"\boxed{- \frac{1}{2}}", "-0.5"),
    (r"\boxed{5 \text{ - 3 eaten}}", "5"),
    (r"\boxed{12\ 000}", "12000"),
    (r"first \boxed{3}, then \boxed{4}. The answer is 5.", "4"),
    (r"The answer is 5, which I put in \boxed{}.", "5"),
    (r"it breaks off: \boxed{17", "17"),
    (r"\fbox{9} and \boxed{\left( 8 \right)}", "8"),
    (r"\boxed{5cm}, \boxed{x = 5} or \boxed{5 + 3 = 8}", "8"),
    (r"x = 2 \boxed{x = 5m}", "5"),
    (r"\boxed{6.02e3}", "6020"),
    (r"\boxed{3x10^4}", "30000"),
    # with symbols
    *(
        (rf"The radius is 2. The answer is \boxed{{{symbols}}}.", "None")
        for symbols in (
            *(r"0.\overline{3}", r"3\sqrt{2}", r"\frac{\pi}{4}", r"\frac{\sqrt{3}}{2}", "5!", "2x+3", "2x"),
            *("12:30", "2m + 3", r"\pi", "x = 2y", r"x = 5 = 2\pi"),
        )
    ),
    # ####
    ("#### 1,234", "1234"),
    ("#### -7", "-7"),
    ("5 + 5\n####\n10", "10"),
    ("#### $12.50 a month", "12.5"),
    ("#### 12. That is all.", "12"),
    ("#### 12 000", "12000"),
    ("#### 100 100 100", "100"),
    ("#### Step 4: Add the 12\n12 + 30 = 42", "42"),
    ("#### 3. Sum\nThe answer is 8.\n#### Check of all 5 rows", "8"),
    # in words
    ("The answer is: \n\n42", "42"),
    ("**Final Answer:** $18", "18"),
    ("**Answer**: 18 (6 boxes of 3)", "18"),
    ("the final answer is therefore 1/2 of a pizza. That took 3 steps.", "0.5"),
    ("The answer to this question is \u22123 °C.", "-3"),
    ("The answer is $1.20.", "1.2"),
    ("The answer is 5 + 3 = 8. This is 2 more than 6 = 6.", "8"),
    ("Answer: x = 5", "5"),
    ("The answer is 5 because x = 2.", "5"),
    ("Answer: 12, where n = 3", "12"),
    ("The answer is 5 + 3 = 8 since 2 + 2 = 4", "8"),
    ("The answer is 3 boxes, with 4 apples each = 12", "12"),
    ("The answer is -½", "-0.5"),
    ("The answer is - 42", "42"),
    ("The answer is 12 000. It is large.", "12000"),
    ("The answer is -$1 234 567.", "-1234567"),
    ("The answer is 2 500 ml bottles.", "2"),
    ("Answer:\n42. I hope this helps!", "42"),
    ("Answer:\n1. Add: 3 + 4 = 7\n2. Check it", "7"),
    ("Answer:\n- 3 apples", "3"),
    ("<answer>42</answer> in 3 steps", "42"),
    ("The answer is 0.", "0"),
    # the last sentence
    ("She has **42** apples after 3 days.", "42"),
    ("**Step 2:** we get **$1,050** in 2 years", "1050"),
    ("**Total = 42 apples** for 6 children", "42"),
    ("Total = 6 * 7 = 42 apples for 3 children", "42"),
    ("It is 12. So 12 - 2 = 10 remain. That leaves 9", "9"),
    ("She pays 10-5", "None"),
    ("x = -½", "-0.5"),
    ("2-½", "None"),
    ("½ cup", "0.5"),
    ("5 - 8 = - 3", "-3"),
    ("x = - $3.50", "-3.5"),
    ("Total =\n- 3 apples", "3"),
    ("So the box is **4 by 3** and has 12", "12"),
    ("Between them: 3, 4", "None"),
    ("Together 20%", "20"),
    ("It costs 1,234 €.", "1234"),
    ("It costs £3.50", "3.5"),
    ("He lost \u2212$3.50", "-3.5"),
    ("He lost $-3.50", "-3.5"),
    ("He drinks 1 1/2 cups", "1.5"),
    ("He drinks 1 and 3/4 cups", "1.75"),
    ("He drinks 2½ cups", "2.5"),
    ("It has 6.02e3 grains", "6020"),
    ("It has 3 x 10^4 grains", "30000"),
    ("The answer is 10²", "100"),
    ("The answer is 10¹²", "1000000000000"),
    ("The answer is 5 \u00d7 10⁻³", "0.005"),
    ("The answer is 5⅛", "5.125"),
    ("The answer is -2^4.", "-16"),
    ("It costs -₹500", "-500"),
    ("He lost ¥-500", "-500"),
    ("It costs **500 ₹** for 2 years", "500"),
    ("Ten (10)", "10"),
    ("It covers 25 m^2", "25"),
    ("It covers 25 m²", "25"),
    ("**25 m³/s** in 2 years", "25"),
    ("It is 9.8 m s⁻²", "9.8"),
    *((f"It is **5 {micro}m** of 7.", "5") for micro in "\u00b5\u03bc\u039c"),  # Greek letters too
    # numbers that are no answer
    ("9 in all\nStep 3: done", "9"),
    ("9 in all, says Q2", "9"),
    ("9 in all.\n1. Count it", "9"),
    ("9 in all, on the 4th day", "9"),
    ("Divide 5/0", "None"),
    (r"\boxed{4^{1/2}}", "None"),
    ("2^0.5", "None"),
    ("1/2^3", "None"),
    ("(2)^3", "None"),
    ("10^3/4", "None"),
    ("0^-1", "None"),
    ("12^" + "9" * 900, "None"),
    ("9" * 10_000, "None"),
    ("7 or 1e999999999", "None"),
    ("", "None"),
    ("no number …", "None"),
]


def _parse(outputs: str) -> list[tuple[str, str]]:
    _, *parts = re.split(r"^=> (.+)\n", outputs, flags=re.MULTILINE)
    return [(text, label) for label, text in zip(parts[::2], parts[1::2], strict=True)]


# Texts with their final answer, "None" if there is none.
FINAL_ANSWERS = _parse(_SMOLLM2) + _parse(_QWEN) + _BY_HAND
