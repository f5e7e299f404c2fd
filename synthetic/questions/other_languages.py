"""Questions in other languages than English, which are answered in English that English is understood.

Training has listed sentences of four languages, and heaps of words of three of them and of five more: a finding is to
follow from no word of theirs, whatever it resembles. The examination has other sentences, and languages of which
training has no sentence.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from synthetic.questions.composed import Frame, composed
from synthetic.questions.findings import Split
from synthetic.questions.kept_apart import Kept

# Answered in English that English is understood: a finding in a language of which training has a few sentences would
# be a guess. Each with the words for what this world shows.
LANGUAGES: Final[Mapping[str, Kept]] = {
    "German": Kept(
        (
            "Gibt es einen Tumor?", "Ist ein Tumor zu sehen?", "Sehen Sie einen Tumor?", "Ist das Krebs?",
            "Wo ist die Nekrose?", "Gibt es Nekrosen?", "Ist Nekrose vorhanden?", "Wo liegt die Nekrose?",
            "Gibt es viele Mitosen?", "Wie viele Mitosen gibt es?", "Sind die Lymphozyten dicht?",
            "Welcher Grad ist es?", "Welches Grading hat der Tumor?", "Wie ist das Stroma?", "Was sehen Sie?",
            "Beschreiben Sie den Schnitt.", "Schreiben Sie einen Befund.", "Wie ist die Prognose?", "Guten Tag",
            "Welche Therapie empfehlen Sie?", "Ist es gutartig?", "Wie hoch ist der Tumoranteil?",
        ),
        (
            "Ist auf diesem Schnitt ein Tumor?", "Wo befindet sich die Nekrose?", "Sind Mitosen häufig?",
            "Finden Sie Lymphozyten?", "Welchen Grad hat dieser Tumor?", "Ist das Gewebe bösartig?",
            "Was zeigt dieses Bild?",
        ),
    ),
    "French": Kept(
        (
            "Y a-t-il une tumeur ?", "Voyez-vous une tumeur ?", "Est-ce un cancer ?", "Est-ce malin ?",
            "Où est la nécrose ?", "Y a-t-il de la nécrose ?", "Où se trouve la nécrose ?",
            "Y a-t-il beaucoup de mitoses ?",
            "Les lymphocytes sont-ils denses ?", "Quel est le grade ?", "Quel grade donnez-vous ?",
            "Comment est le stroma ?",
            "Que voyez-vous ?", "Décrivez cette lame.", "Rédigez un compte rendu.", "Quel est le pronostic ?",
            "Bonjour",
            "Quel traitement conseillez-vous ?", "Est-ce bénin ?", "Quelle est la part de la tumeur ?",
        ),
        (
            "Une tumeur est-elle présente ?", "Dans quel quadrant est la nécrose ?",
            "Les mitoses sont-elles fréquentes ?",
            "Voyez-vous des lymphocytes ?", "Quel est le grade de cette tumeur ?", "Que montre cette image ?",
        ),
    ),
    "Spanish": Kept(
        (
            "¿Hay un tumor?", "¿Ve usted un tumor?", "¿Es cáncer?", "¿Es maligno?", "¿Dónde está la necrosis?",
            "¿Hay necrosis?", "¿Se ve necrosis?", "¿Hay muchas mitosis?", "¿Son densos los linfocitos?",
            "¿Qué grado es?",
            "¿Cuál es el grado del tumor?", "¿Cómo es el estroma?", "¿Qué ve usted?", "Describa esta imagen.",
            "Escriba un informe.", "¿Cuál es el pronóstico?", "Buenos días", "¿Qué tratamiento recomienda?",
            "¿Es benigno?", "Hay un tumor?", "Donde esta la necrosis?",
        ),
        (
            "¿Existe algún tumor aquí?", "¿En qué cuadrante está la necrosis?", "¿Son frecuentes las mitosis?",
            "¿Ve linfocitos?", "¿Qué grado tiene este tumor?", "¿Qué muestra esta imagen?",
        ),
    ),
    "Chinese": Kept(
        (
            "有肿瘤吗？", "这是癌症吗？", "坏死在哪里？", "有坏死吗？", "有丝分裂多吗？", "淋巴细胞密集吗？",
            "肿瘤分级是多少？",
            "你看到了什么？", "描述这张切片。", "预后如何？", "你好", "是恶性的吗？",
        ),
        ("切片上有没有肿瘤？", "坏死位于哪个象限？", "核分裂象多见吗？", "这张图显示什么？"),
    ),
}  # fmt: skip
# Languages of which training sees nothing: the examination asks whether at least nothing false is found.
UNSEEN_LANGUAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "Italian": ("C'è un tumore?", "Dov'è la necrosi?", "Che grado è?"),
    "Dutch": ("Is er een tumor te zien?", "Waar zit de necrose?"),
}

_FRAMES: Final[Mapping[str, tuple[Frame, ...]]] = {
    "German": (
        (
            ("Gibt es ", "Sehen Sie ", "Erkennen Sie ", "Sieht man ", "Haben wir ", "Hat der Patient ",
             "Zeigt das Bild "),
            ("einen Tumor", "Nekrosen", "Krebs", "Mitosen", "viele Lymphozyten", "ein Karzinom", "totes Gewebe",
             "eine Entzündung", "Metastasen", "etwas Auffälliges", "Tumorzellen", "eine Nekrose", "Drüsen",
             "Zellteilungen"),
            ("", " hier", " im Gewebe", " auf dem Bild", " im Präparat", " auf diesem Objektträger", " oder nicht"),
            ("?",),
        ),
        (
            ("Wo ", "Wie ", "Warum ", "Wann ", "Wodurch ", "In welchem Quadranten ", "Woran sieht man, wo "),
            ("ist ", "liegt ", "war ", "sitzt ", "findet man ", "sehen Sie "),
            ("die Nekrose", "der Tumor", "das Stroma", "das tote Gewebe", "die Entzündung", "der Krebs",
             "die Läsion"),
            ("", " genau", " hier", " im Bild", " am ehesten"),
            ("?",),
        ),
        (
            ("Wie ", "Sehr ", "Eher "),
            ("hoch", "häufig", "dicht", "groß", "stark", "schlimm", "alt", "viele"),
            (" ist der Tumor", " sind die Mitosen", " ist die Mitoserate", " sind die Lymphozyten",
             " ist der Grad", " ist der Patient", " ist der Anteil"),
            ("?", " hier?"),
        ),
        (
            ("Bitte ", "Können Sie ", "Würden Sie ", "Ich möchte "),
            ("den Befund", "das Präparat", "die Diagnose", "den Grad", "das Muster", "die Therapie", "alles"),
            (" beschreiben", " nennen", " schreiben", " wissen", " erklären", " angeben"),
            (".", "?"),
        ),
        (
            ("Ist das ", "Ist dieses Gewebe ", "Ist der Tumor ", "Ist es ", "Ist der Schnitt "),
            ("gutartig", "bösartig", "Krebs", "normal", "papillär", "solide", "Grad 3", "entzündet",
             "gefährlich", "eine Niere", "frei von Tumor", "auffällig"),
            ("?", ", ja oder nein?", " oder nicht?"),
        ),
    ),
    "French": (
        (
            ("Y a-t-il ", "Voyez-vous ", "Voit-on ", "Trouvez-vous ", "Est-ce qu'il y a ", "Observe-t-on ",
             "Avez-vous vu "),
            ("une tumeur", "de la nécrose", "un cancer", "des mitoses", "beaucoup de lymphocytes",
             "un carcinome", "du tissu mort", "une inflammation", "des métastases", "quelque chose d'anormal",
             "des cellules tumorales"),
            ("", " ici", " sur la lame", " dans ce tissu", " sur cette image", " ou non"),
            (" ?", "?"),
        ),
        (
            ("Où ", "Comment ", "Pourquoi ", "Quand ", "Dans quelle partie "),
            ("est ", "se trouve ", "était ", "voyez-vous "),
            ("la nécrose", "la tumeur", "le stroma", "le tissu mort", "l'inflammation", "le cancer", "la lésion"),
            ("", " exactement", " ici", " dans l'image"),
            (" ?", "?"),
        ),
        (
            ("Quel est ", "Quelle est ", "Donnez ", "Décrivez ", "Indiquez ", "Pouvez-vous donner ",
             "Je voudrais "),
            ("le grade", "le diagnostic", "le type de cancer", "la lame", "le rapport", "le pronostic",
             "l'âge du patient", "la proportion de tumeur", "le traitement", "l'aspect du stroma"),
            ("", " ici", " de cette tumeur", " s'il vous plaît"),
            (" ?", "?", "."),
        ),
        (
            ("Est-ce ", "Ce tissu est-il ", "La tumeur est-elle ", "Est-il "),
            ("bénin", "malin", "un cancer", "normal", "papillaire", "solide", "de grade 3", "enflammé",
             "dangereux", "un rein"),
            (" ?", "?", ", oui ou non ?"),
        ),
    ),
    "Spanish": (
        (
            ("¿Hay ", "Hay ", "¿Ve usted ", "¿Se observa ", "¿Se ven ", "¿Tiene el paciente ", "¿Encuentra "),
            ("un tumor", "necrosis", "cáncer", "mitosis", "muchos linfocitos", "un carcinoma", "tejido muerto",
             "inflamación", "metástasis", "algo anormal", "células tumorales"),
            ("", " aquí", " en la imagen", " en este tejido", " en el corte", " o no"),
            ("?",),
        ),
        (
            ("¿Dónde ", "¿Cómo ", "¿Por qué ", "¿Cuándo ", "¿En qué parte ", "Donde "),
            ("está ", "se encuentra ", "estaba ", "se ve "),
            ("la necrosis", "el tumor", "el estroma", "el tejido muerto", "la inflamación", "el cáncer",
             "la lesión"),
            ("", " exactamente", " aquí", " en la imagen"),
            ("?",),
        ),
        (
            ("¿Cuál es ", "Diga ", "Describa ", "¿Me puede dar ", "Quiero saber "),
            ("el grado", "el diagnóstico", "el tipo de cáncer", "el informe", "el pronóstico", "la edad",
             "el tratamiento", "la proporción de tumor"),
            ("", " aquí", " del tumor", " por favor"),
            ("?", "."),
        ),
        (
            ("¿Es ", "¿Es esto ", "¿El tumor es ", "¿Este tejido es ", "Es "),
            ("benigno", "maligno", "cáncer", "normal", "papilar", "sólido", "de grado 3", "peligroso", "un riñón"),
            ("?", ", sí o no?"),
        ),
    ),
    "Chinese": (
        (
            ("有", "有没有", "能看到", "是否有", "这里有", "图中有", "请问有"),
            ("肿瘤", "坏死", "癌症", "核分裂", "很多淋巴细胞", "炎症", "癌细胞", "转移", "异常"),
            ("吗？", "？", "吗", "在切片上吗？"),
        ),
        (
            ("请描述", "请说明", "什么是", "请写出", "多少", "哪里是", "为什么是"),
            ("肿瘤", "坏死", "分级", "报告", "诊断", "间质", "预后", "治疗", "病人"),
            ("？", "。", "的位置？", "的情况。"),
        ),
    ),
}  # fmt: skip
# Words of each, in no order that means anything.
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    language: tuple(words.split())
    for language, words in {
        "German": """
            der die das ein eine einen ist sind war hat haben wird kann nicht kein keine und oder aber mit von
            zu im auf bei nach für über wie wo was wer warum wann welche welcher sehr viel viele mehr noch
            schon hier dort bitte danke guten Tag Patient Arzt Bild Schnitt Gewebe Zelle Zellen Tumor Krebs
            Nekrose Befund Grad Kerne Drüsen Rand Grenze Leber Lunge Niere Blutung Färbung Probe Operation
            Ergebnis Frage zeigen sehen finden sagen wissen gutartig bösartig normal häufig selten dicht
            locker oben unten links rechts
        """,
        "French": """
            le la les un une des du de est sont était a ont dans sur avec pour sans pas ne plus très bien mais
            ou et que qui quel quelle où comment pourquoi quand combien il elle on nous vous votre cette ce
            ces ici là bonjour merci patient médecin lame image tissu cellule cellules tumeur cancer nécrose
            rapport grade noyaux glandes bord foie poumon rein prélèvement résultat question voir montrer
            trouver dire savoir bénin malin normal fréquent rare dense lâche haut bas gauche droite
        """,
        "Spanish": """
            el la los las un una de del es son era hay tiene en con para por sin no más muy bien pero o y que
            quien cual cuál dónde cómo cuándo cuánto por qué este esta estos aquí allí hola gracias buenos
            días paciente médico corte imagen tejido célula células tumor cáncer necrosis informe grado
            núcleos glándulas borde hígado pulmón riñón muestra resultado pregunta ver mostrar encontrar decir
            saber benigno maligno normal frecuente raro denso laxo arriba abajo izquierda derecha
        """,
        "Portuguese": """
            o a os as um uma de do da é são há tem em com para por sem não mais muito bem mas ou e que quem
            qual onde como quando quanto este esta aqui ali olá obrigado bom dia doente médico lâmina imagem
            tecido célula células tumor câncer laudo grau núcleos glândulas fígado pulmão rim amostra
            resultado pergunta benigno maligno
        """,
        "Swedish": """
            en ett den det är var har kan inte och eller men med av till i på hos efter för över hur var vad
            vem varför när vilken mycket många här där tack hej patienten läkare bild snitt vävnad cell celler
            tumör cancer nekros utlåtande grad kärnor körtlar lever lunga njure prov svar fråga finns visa
            godartad elakartad
        """,
        "Polish": """
            jest są był ma nie tak i lub ale z do w na po dla jak gdzie co kto dlaczego kiedy który bardzo
            dużo tu tam proszę dziękuję dzień dobry pacjent lekarz obraz skrawek tkanka komórka komórki guz
            rak martwica wynik stopień jądra gruczoły wątroba płuco nerka próbka pytanie czy widać łagodny
            złośliwy
        """,
        "Turkish": """
            bir bu şu var yok mı mi mu ve veya ama ile için çok nasıl nerede ne kim neden zaman hangi burada
            orada lütfen merhaba teşekkürler hasta doktor görüntü kesit doku hücre hücreler tümör kanser
            nekroz rapor derece çekirdek karaciğer akciğer böbrek örnek sonuç soru görülüyor iyi kötü huylu
        """,
        "Russian": """
            есть ли это в на с и или не как где что кто почему когда какой очень много здесь там пожалуйста
            спасибо пациент врач снимок срез ткань клетка клетки опухоль рак некроз заключение степень ядра
            железы печень лёгкое почка образец вопрос видно
        """,
    }.items()
}
_MARKS: Final = ("?", "?", "?", ".", "!", "")


def foreign_text(split: Split, rng: np.random.Generator) -> tuple[str, str]:
    """A language and a text in it. For training a third each are listed, put together, and heaps of words."""
    draw = rng.random() if split == "seen" else 1.0
    if draw < 1 / 3:
        language = _one(tuple(_WORDS), rng)
        words = [_one(_WORDS[language], rng) for _ in range(int(rng.integers(2, 9)))]
        text = " ".join(words)
        return language, text[0].upper() + text[1:] + _one(_MARKS, rng)
    language = _one(tuple(LANGUAGES), rng)
    kept = LANGUAGES[language]
    if draw < 2 / 3:
        return language, composed(_FRAMES[language], kept.unseen, rng)
    return language, _one(kept.texts(split), rng)


def _one(items: tuple[str, ...], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]
