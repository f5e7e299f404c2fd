"""What the demo model says that it can be asked is what it was trained on."""

from model_store.manifest import packaged_manifest
from synthetic.questions.topics import ATTRIBUTES
from training.demo_recipe import DEMO


def test_its_topics_are_what_a_slide_can_show() -> None:
    abilities = packaged_manifest("demo").abilities

    assert list(abilities.topics) == [topic.name for topic in ATTRIBUTES]
    for topic in ATTRIBUTES:
        asked = abilities.topics[topic.name].lower()
        assert any(word in asked for noun in topic.nouns for word in noun.split() if len(word) > 5), topic.name


def test_its_conversations_were_no_longer_in_training() -> None:
    settings = DEMO.instruct_everyday

    assert packaged_manifest("demo").abilities.trained_turns == DEMO.mix(settings, DEMO.closed_on_slides).most_turns
