"""Short texts of many kinds, for calibration where no dataset is named.

They show what a general model is asked: prose, explanation, dialogue, numbers and code, in English and Chinese. Rows of the
task that a model is for tell better what it needs.
"""

TEXTS = (
    "The ferry leaves the harbour at seven every morning except Sunday. In winter it waits for the mail van, so passengers who "
    "want to catch the ten o'clock train on the other side should ask the crew before they board.",
    "Photosynthesis turns light into stored energy. A plant takes in carbon dioxide through its leaves and water through its "
    "roots, and with the energy of sunlight makes sugar from them; oxygen is what is left over.",
    "Question: A shop sells pencils at 3 for 2 dollars. How much do 12 pencils cost?\nAnswer: 12 pencils are 12 / 3 = 4 sets. "
    "Each set costs 2 dollars, so they cost 4 * 2 = 8 dollars.",
    "def running_mean(values):\n    total = 0.0\n    for count, value in enumerate(values, start=1):\n        total += value\n"
    "        yield total / count\n",
    "春天来了,河边的柳树发出了新芽。孩子们放学以后常常去那里放风筝,老人坐在长椅上晒太阳,聊着过去的事情。",
    "客户:我上周买的水壶漏水,可以换一个吗?\n客服:很抱歉给您带来不便。请您提供订单号和一张照片,我们会在两个工作日内寄出新的水壶,"
    "运费由我们承担。",
    "To make a simple bread, mix 500 g of flour with 350 ml of warm water, 10 g of salt and a little yeast. Knead it for ten "
    "minutes, let it rest for an hour, shape it, and bake it at 220 degrees until the crust is brown.",
    "The committee met twice in March. It agreed that the library should stay open until nine on weekdays, but could not "
    "decide who would pay for the additional staff, and asked the treasurer to prepare three proposals by the end of April.",
    "User: My laptop does not start after the update. What should I try first?\nAssistant: Hold the power button for ten "
    "seconds, then start it while holding the key that opens the recovery menu. From there you can undo the last update.",
    "勾股定理说的是:直角三角形两条直角边的平方和等于斜边的平方。例如两条直角边长是 3 和 4,那么斜边长是 5,因为 9 + 16 = 25。",
    "SELECT customer, SUM(amount) AS total\nFROM orders\nWHERE placed >= '2024-01-01'\nGROUP BY customer\nHAVING SUM(amount) > "
    "1000\nORDER BY total DESC;",
    "Interest rates rose for the third time this year. Households with variable mortgages will notice it within weeks, while "
    "savers may have to wait: banks usually pass higher rates on to borrowers faster than to depositors.",
    "She opened the letter slowly, as if the words inside might spill onto the floor. It was only one page, and most of it was "
    "about the weather, but the last line made her sit down.",
    "The heart has four chambers. Blood that lacks oxygen enters the right atrium, passes into the right ventricle and is "
    "pumped to the lungs; from there it returns to the left side, which sends it through the rest of the body.",
    '{"name": "temperature", "unit": "celsius", "readings": [{"time": "08:00", "value": 11.5}, {"time": "12:00", "value": '
    '17.0}, {"time": "18:00", "value": 14.25}]}',
    "写一封请假邮件:尊敬的李经理,您好!因家中有事需要处理,我想在本周五请假一天。手头的报告我会在周四下班前完成并发给您。谢谢!",
    "Translate into French: The train was late because of the snow.\nLe train était en retard à cause de la neige.",
    "If all members of the club play chess, and Nora is a member of the club, then Nora plays chess. If Tom plays chess, it "
    "does not follow that he is a member: people outside the club may play as well.",
    "The first settlers built their houses of stone, since wood was scarce on the island. Roofs were covered with turf, which "
    "kept the rooms warm in winter and had to be mended every spring.",
    "人工智能模型在训练时会看到大量文本,从中学习词语之间的关系。模型越大,需要的计算资源越多;剪枝和量化可以让模型变小,但可能损失一部分能力。",
    "for i in range(1, 16):\n    if i % 15 == 0:\n        print('FizzBuzz')\n    elif i % 5 == 0:\n        print('Buzz')\n"
    "    elif i % 3 == 0:\n        print('Fizz')\n    else:\n        print(i)\n",
    "Dear Ms. Ortega, thank you for your order of 24 chairs. Two of them arrived at our warehouse with scratched legs, so we "
    "will send 22 now and the others next week, at no further cost.",
    "Water boils at a lower temperature on a mountain because the air pressure is lower there. At 3,000 metres it boils at "
    "about 90 degrees Celsius, which is why rice takes longer to cook.",
    "Summary: The report compares three ways to heat old houses. Heat pumps cost most to install and least to run; gas is the "
    "opposite; wood depends on the price of fuel and on how much work the owners are willing to do.",
    "问:北京到上海的高铁要多长时间?\n答:最快的车次大约四个半小时,一般的车次要五到六个小时。建议提前在网上订票,节假日车票比较紧张。",
    "Chess players often speak of tempo: a move that develops a piece and at the same time forces the opponent to answer wins "
    "time, and in open positions time can be worth more than a pawn.",
)
