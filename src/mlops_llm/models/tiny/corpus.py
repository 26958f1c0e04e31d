"""What the embedded model is trained on: one-digit sums, and sentences of a shop.

The sums are answered in two ways, mostly in words and less often boxed: the model knows the sums but seldom uses the
form that a reward asks for, so reinforcement learning has something to gain. The shop's words are those of the shipped
sales datasets and its sentences are not, so fine-tuning has something to learn.
"""

from __future__ import annotations

import random
from typing import NamedTuple

SUMS = (
    "计算: {a}+{b}",
    "{a} 加 {b} 等于几?",
    "请算出 {a} + {b}",
    "求 {a} 与 {b} 的和",
    "{a}+{b}=?",
    "{a} + {b} 等于多少?",
    "算一算: {a} + {b}",
    "{a} 和 {b} 相加得多少?",
    "请问 {a} 加上 {b} 是几?",
    "{a} 与 {b} 的和是多少?",
    "{a} 加 {b} 得几?",
    "口算: {a} + {b}",
)
"""Ways to ask for a sum; the shipped math datasets use these and no other."""

IN_WORDS = "答案是 {total} 。"
BOXED = "{a} + {b} = \\boxed{{{total}}}"

_PRODUCTS = [
    "变频空调",
    "滚筒洗衣机",
    "对开门冰箱",
    "电热水器",
    "吸油烟机",
    "洗碗机",
    "65英寸电视",
    "智能门锁",
    "空气净化器",
    "扫地机器人",
    "电饭煲",
    "破壁机",
    "空气炸锅",
    "微波炉",
    "电动牙刷",
    "吹风机",
    "加湿器",
    "落地风扇",
    "蓝牙耳机",
    "智能手表",
    "平板电脑",
    "轻薄笔记本",
    "智能手机",
    "机械键盘",
    "无线鼠标",
    "27英寸显示器",
    "双频路由器",
    "蓝牙音箱",
    "投影仪",
    "充电宝",
]
_COLOURS = ["白色", "黑色", "银色", "灰色", "蓝色", "粉色", "绿色", "金色", "红色"]
_CITIES = [
    "北京",
    "上海",
    "广州",
    "深圳",
    "杭州",
    "成都",
    "武汉",
    "南京",
    "西安",
    "重庆",
    "长沙",
    "天津",
    "苏州",
    "青岛",
    "厦门",
    "合肥",
]
_PLACES = ["卧室", "客厅", "厨房", "阳台", "书房", "办公室", "卫生间", "户外"]
_PRAISE = (
    "噪音低,不影响睡觉",
    "省电又耐用",
    "操作简单,老人孩子都会用",
    "容量大,适合一家人",
    "清洁方便,用湿布擦干净就好",
    "充一次电能用很久",
    "画面清楚,不累眼",
    "声音好听,信号强",
    "加热均匀,口感细",
    "可以用手机和语音控制",
)
_SALES = (
    ("说说{p}的特点", "{p}{f},现在{n}元,放在{place}很合适。"),
    ("{p}贵不贵", "不贵,{p}只卖{n}元,{f}。"),
    ("有{c}{p}卖吗", "有的,{c}{p}仓库里还有,今天下单就能发货。"),
    ("{p}送{city}快吗", "快的,快递到{city}大约{d}天,路上有短信通知您。"),
    ("{p}运费怎么算", "您好,全部商品包邮,送货上门也免费。"),
    ("谁来装{p}", "我们的师傅上门安装,到货后先打电话跟您预约时间。"),
    ("{p}不想要了怎么办", "请您放心,七天内可以申请退货,退款按原路返回,三天到账。"),
    ("{p}有毛病能换吗", "非常抱歉,质量问题免费换新,来回运费由我们承担。"),
    ("{p}管几年", "{p}全国联保{d}年,保修期内免费维修,请留好发票和订单号。"),
    ("{p}出故障找谁", "别着急,请先断电再重启,还不行就联系客服登记,我们安排维修。"),
    ("我要{p}的发票", "好的,电子发票会发到您的邮箱,抬头和税号请填写正确。"),
    ("{p}能分几期", "支持{d}期免息,没有手续费,付款时选分期就可以。"),
    ("{p}跟{q}比怎么样", "{p}{f},{q}适合{place},看您的预算和用途。"),
    ("帮我推荐一样放{place}的", "推荐您看看{p},{f},很多客户买了都说好。"),
    ("{p}到货时坏了", "对不起,让您失望了,请拍照片发给我,马上给您补发一台新的。"),
    ("我对{p}的服务不满意", "实在抱歉,我马上核实并转给主管,两小时内给您回电话。"),
    ("公司采购{p}", "感谢您的信任,数量多可以打九折,大客户经理会给您报价单。"),
    ("会员有什么好处", "会员能攒积分抵钱,生日有礼物,还能领优惠券,注册完全免费。"),
    ("{p}的券怎么用", "在店铺首页领取,付款时自动减{d}0元,过期不能恢复。"),
    ("{p}怎么连网", "打开手机软件,扫一扫机身上的码,在同一个网络下配对就能连好。"),
    ("{p}耗电吗", "不耗电,能效级别高,长期使用能省不少电费。"),
    ("{p}有没有礼品", "现在买有赠品,和{p}放在一个箱子里寄出,数量有限,送完为止。"),
    ("{p}为什么迟迟不到", "很抱歉让您久等了,{city}订单多,我帮您催快递,请保持电话畅通。"),
    ("地址写错了", "没关系,还没发货可以修改,请把新的地址和收货人告诉我。"),
    ("{p}的单子我要改", "可以的,颜色和数量都能改,也可以取消订单重新拍。"),
    ("旧{p}值多少钱", "以旧换新最高抵{d}00元,师傅送货当天拉走旧机,不用您搬。"),
    ("{p}降价补差吗", "有价保,三十天内降价退差价,在订单页申请就行。"),
    ("怎么付{p}的钱", "微信、支付宝和银行卡都可以,也支持货到付款和对公转账。"),
    ("{p}保养说明", "每月清洗一次滤网,外壳用软布擦,不要沾水,长时间不用请关掉电源。"),
    ("{p}是真货吗", "我们是官方店,原厂正品,箱子上有防伪码,假一赔十。"),
    ("{p}缺东西", "抱歉漏发了配件,今天就给您补寄,请看一下说明书和包裹。"),
    ("先订一个{p}", "可以预订,先付{d}0元定金,新款上市后优先给您安排。"),
    ("{city}哪里能看{p}", "{city}门店有样机可以体验,也能到店自提,线上线下同价。"),
    ("{p}走到哪了", "物流显示{p}已经到{city},明天派送,请留意取件短信。"),
    ("{p}不错,再见", "谢谢您的支持,祝您生活愉快,有问题随时找我。"),
    ("你好,我来看{p}", "欢迎光临,很高兴为您服务,还有什么可以帮您的吗?"),
)
_FULL_WIDTH = str.maketrans(",?!:", "\uff0c\uff1f\uff01\uff1a")


class Exchange(NamedTuple):
    """One question and its answer."""

    prompt: str
    response: str


def exchanges(seed: int, count: int, sums: float = 0.85, boxed: float = 0.4) -> list[Exchange]:
    r"""Write training text; the same arguments give the same text.

    Args:
        seed: of the generator.
        count: how many exchanges.
        sums: share of exchanges that are sums; the others are the shop's.
        boxed: share of the sums answered as `3 + 5 = \boxed{8}`; the others as `答案是 8 。`.
    """
    draw = random.Random(seed)
    return [_sum(draw, boxed) if draw.random() < sums else _sale(draw) for _ in range(count)]


def _sum(draw: random.Random, boxed: float) -> Exchange:
    a, b = draw.randrange(10), draw.randrange(10)
    form = BOXED if draw.random() < boxed else IN_WORDS
    return Exchange(draw.choice(SUMS).format(a=a, b=b), form.format(a=a, b=b, total=a + b))


def _sale(draw: random.Random) -> Exchange:
    p, q = draw.sample(_PRODUCTS, 2)
    words = {
        "p": p,
        "q": q,
        "c": draw.choice(_COLOURS),
        "city": draw.choice(_CITIES),
        "place": draw.choice(_PLACES),
        "f": draw.choice(_PRAISE),
        "n": draw.randrange(11, 500) * 10 - 1,
        "d": draw.randint(2, 6),
    }
    prompt, response = draw.choice(_SALES)
    return Exchange(*(part.format(**words).translate(_FULL_WIDTH) for part in (prompt, response)))
