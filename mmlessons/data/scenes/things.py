"""三十样东西与它们的说法 / Thirty things and how they are spoken of: names, measure words, articles, plurals."""

from dataclasses import dataclass

LANGUAGES = ("zh", "en")


@dataclass(frozen=True)
class Thing:
    """一样东西：表情数据里的概念，以及两种语言里怎样说它 / A thing: its concept in the emoji data and how to say it."""

    concept: str  # its English name in the emoji data
    zh: str
    measure: str  # the Chinese measure word: 一只狗
    en: str
    plural: str

    @property
    def title(self) -> tuple[str, str]:
        """（中文, English）名字 / The names as (Chinese, English)."""
        return self.zh, self.en

    @property
    def article(self) -> str:
        """带不定冠词的英文名 / The English name with its indefinite article: "an apple"."""
        return f"{'an' if self.en[0] in 'aeiou' else 'a'} {self.en}"

    def counted(self, count: int, language: str) -> str:
        """几个这样的东西 / So many of them, 0 to 4: "两只狗", "two dogs"."""
        if language == "zh":
            return f"{COUNTING[count]}{self.measure}{self.zh}"
        return f"{NUMBERS[count][1] if count else 'no'} {self.en if count == 1 else self.plural}"


def _thing(zh: str, measure: str, en: str, plural: str | None = None, concept: str | None = None) -> Thing:
    return Thing(concept or en, zh, measure, en, plural or f"{en}s")


THINGS = (
    _thing("狗", "只", "dog"), _thing("猫", "只", "cat"), _thing("大象", "头", "elephant"),
    _thing("企鹅", "只", "penguin"), _thing("鱼", "条", "fish", "fish"), _thing("蛇", "条", "snake"),
    _thing("蜗牛", "只", "snail"), _thing("苹果", "个", "apple", concept="red apple"), _thing("香蕉", "根", "banana"),
    _thing("柠檬", "个", "lemon"), _thing("梨", "个", "pear"), _thing("菠萝", "个", "pineapple"),
    _thing("蘑菇", "朵", "mushroom"), _thing("汉堡", "个", "hamburger"), _thing("甜甜圈", "个", "doughnut"),
    _thing("汽车", "辆", "car", concept="automobile"), _thing("自行车", "辆", "bicycle"),
    _thing("飞机", "架", "airplane"), _thing("船", "艘", "ship"), _thing("火箭", "枚", "rocket"),
    _thing("钥匙", "把", "key"), _thing("吉他", "把", "guitar"), _thing("铃铛", "个", "bell"),
    _thing("皇冠", "顶", "crown"), _thing("门", "扇", "door"), _thing("闹钟", "个", "alarm clock"),
    _thing("锤子", "把", "hammer"), _thing("星星", "颗", "star"), _thing("玫瑰", "朵", "rose"),
    _thing("雪人", "个", "snowman", "snowmen", "snowman without snow"),
)
NUMBERS = (("零", "zero"), ("一", "one"), ("二", "two"), ("三", "three"), ("四", "four"))
COUNTING = ("零", "一", "两", "三", "四")  # before a measure word 二 becomes 两
PLACES = (("左上", "top left"), ("右上", "top right"), ("左下", "bottom left"), ("右下", "bottom right"))
